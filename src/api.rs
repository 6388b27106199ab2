//! The functions SQL calls, all of them private to `sql/`. Each is safe when called directly: it takes an id and looks
//! at that row as the caller, so nothing here gives more than the caller's own policies.

use pgrx::pg_schema;

#[pg_schema]
mod storage_private {
    use pg_storage_core::content_type::Pattern;
    use pg_storage_core::error::{Invalid, Token};
    use pg_storage_core::name::BucketKey;
    use pg_storage_core::origin;
    use pg_storage_core::page_token::{Listing, Order};
    use pg_storage_core::physical::check_bucket_name;
    use pg_storage_store::inspect;
    use pgrx::datum::{Interval, TimestampWithTimeZone};
    use pgrx::prelude::*;
    use pgrx::{JsonB, Uuid};

    use crate::bucket::Bucket;
    use crate::clock::Moment;
    use crate::download::{self, Wish};
    use crate::error::{self, Failure, OrRaise};
    use crate::files::contents::{self, New};
    use crate::files::{found, listing, places, search};
    use crate::json::Jsonb;
    use crate::limits;
    use crate::lock::{self, On};
    use crate::orphans::{self, Repair};
    use crate::provision::{self, Ask};
    use crate::upload::{self, Declared, PartsWanted, Ticket, Wanted};
    use crate::{
        bucket_deletion, cache, config, diagnose, guc, identity, maintenance, operation, preload, session,
        wait, worker,
    };

    /// Holds a lock of ours until the transaction ends.
    #[pg_extern(volatile)]
    fn hold_lock(kind: &str, name: &str) {
        lock::hold(On::named(kind, name).or_raise());
    }

    /// Holds a lock of ours until the transaction ends, unless another session has it.
    #[pg_extern(volatile)]
    fn try_hold_lock(kind: &str, name: &str) -> bool {
        lock::try_hold(On::named(kind, name).or_raise())
    }

    /// Whether another session has a lock of ours.
    #[pg_extern(volatile)]
    fn is_locked(kind: &str, name: &str) -> bool {
        lock::is_held(On::named(kind, name).or_raise())
    }

    /// The caller's user id as the claims say it.
    #[pg_extern(stable, parallel_safe)]
    fn claimed_user() -> String {
        identity::user().or_raise()
    }

    /// The caller's tenant as the claims say it.
    #[pg_extern(stable, parallel_safe)]
    fn claimed_tenant() -> String {
        identity::tenant().or_raise()
    }

    /// The operation that is asking. A parallel worker would not know it.
    #[pg_extern(stable, parallel_restricted)]
    fn asked_operation() -> &'static str {
        operation::current().as_str()
    }

    /// Refuses a text that is not one SQL expression.
    #[pg_extern(stable)]
    fn validate_expression(expression: &str) {
        operation::check_expression(expression).or_raise();
    }

    /// Ends the statement with an error in the house style: the token's SQLSTATE, message, DETAIL and HINT.
    ///
    /// Volatile: the planner calls what is less with constant arguments, also where the statement never would.
    #[pg_extern(volatile, parallel_safe)]
    fn refuse(token: &str, message: &str, detail: Option<&str>, hint: Option<&str>) {
        let Some(token) = Token::ALL.iter().find(|known| known.as_str() == token) else {
            Failure::internal(format!("unknown error token {token}")).raise()
        };
        let mut failure = Failure::new(*token, message);
        if let Some(detail) = detail {
            failure = failure.detail(detail);
        }
        if let Some(hint) = hint {
            failure = failure.hint(hint);
        }
        failure.raise()
    }

    /// The UUID that a text spells in any way; NULL when it is none. A bucket's key never is one.
    #[pg_extern(immutable, parallel_safe)]
    fn as_uuid(text: &str) -> Option<Uuid> {
        uuid::Uuid::try_parse(text).ok().map(|id| Uuid::from_bytes(*id.as_bytes()))
    }

    /// Refuses to go on where nothing can be written.
    #[pg_extern(stable)]
    fn require_writable() {
        if preload::read_only() {
            Failure::new(Token::ReadOnly, "the server or the transaction is read-only")
                .hint("A standby signs downloads and nothing else; ask the primary.")
                .raise()
        }
    }

    /// How long an object outlives its last file.
    #[pg_extern(stable)]
    fn deletion_delay() -> Interval {
        Interval::from_seconds(guc::DELETION_DELAY.get().into())
    }

    /// How long events are kept; nothing: they are not recorded.
    #[pg_extern(stable)]
    fn event_retention() -> Interval {
        Interval::from_seconds(guc::EVENT_RETENTION.get().into())
    }

    /// Refuses a bucket row that breaks the rules.
    #[pg_extern(stable)]
    fn validate_bucket(
        key: Option<&str>,
        allowed_mime_types: Option<Vec<Option<String>>>,
        allowed_origins: Option<Vec<Option<String>>>,
        physical_name: Option<&str>,
    ) {
        BucketKey::parse(key.unwrap_or_default()).or_raise();
        for pattern in allowed_mime_types.into_iter().flatten() {
            Pattern::parse(pattern.as_deref().unwrap_or_default()).or_raise();
        }
        check_origins(allowed_origins).or_raise();
        if let Some(name) = physical_name {
            check_bucket_name(name)
                .map_err(|reason| {
                    Failure::new(Token::InvalidBucketKey, "the physical name is not a bucket name")
                        .detail(format!("'{name}': {reason}."))
                        .hint("S3 bucket names have 3 to 63 of a-z, 0-9, dot and hyphen.")
                })
                .or_raise();
        }
    }

    /// Refuses origins that are none.
    #[pg_extern(stable)]
    fn validate_origins(allowed_origins: Option<Vec<Option<String>>>) {
        check_origins(allowed_origins).or_raise();
    }

    fn check_origins(origins: Option<Vec<Option<String>>>) -> Result<(), Invalid> {
        let origins = origins.unwrap_or_default();
        origin::check_list(origins.iter().map(|origin| origin.as_deref().unwrap_or_default()))
    }

    /// Refuses a file name or path that breaks the rules.
    #[pg_extern(stable)]
    fn validate_file(filename: Option<&str>, path: Option<&str>) {
        upload::check_names(filename.unwrap_or_default(), path);
    }

    /// NULL is the id of no row, and so is the nil UUID: the answer is "not found", in the usual words.
    fn or_nil(id: Option<Uuid>) -> Uuid {
        id.unwrap_or_else(|| Uuid::from_bytes([0; 16]))
    }

    /// What is missing breaks the same rule as what is empty.
    fn declared<'a>(
        filename: Option<&'a str>,
        content_type: Option<&'a str>,
        size: Option<i64>,
        sha256: Option<&'a str>,
        path: Option<&'a str>,
        expires_in: Option<Interval>,
    ) -> Declared<'a> {
        Declared {
            filename: filename.unwrap_or_default(),
            content_type: content_type.unwrap_or_default(),
            size: size.unwrap_or_default(),
            sha256,
            path,
            expires_in,
        }
    }

    /// Keeps the limits of an upload request that was just inserted.
    #[pg_trigger]
    fn limit_upload<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, PgTriggerError> {
        limits::inserted(trigger).or_raise();
        Ok(None)
    }

    /// Validates what is declared of a file to come and chooses the trusted columns of its upload request.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn admit(
        bucket_id: Option<Uuid>,
        filename: Option<&str>,
        content_type: Option<&str>,
        size: Option<i64>,
        sha256: Option<&str>,
        path: Option<&str>,
        expires_in: Option<Interval>,
    ) -> TableIterator<
        'static,
        (
            name!(id, Uuid),
            name!(file_id, Uuid),
            name!(tenant_id, String),
            name!(physical_name, Option<String>),
            name!(object_key, Option<String>),
            name!(final_key, Option<String>),
            name!(direct, bool),
            name!(create_only, bool),
            name!(created_at, TimestampWithTimeZone),
            name!(expires_at, TimestampWithTimeZone),
        ),
    > {
        let declared = declared(filename, content_type, size, sha256, path, expires_in);
        let bucket = Bucket::visible(or_nil(bucket_id)).or_raise();
        let admission = upload::admit(&bucket, &declared).or_raise();
        let (physical_name, object_key, final_key, direct, create_only) = match admission.place {
            Some(place) => (
                Some(place.physical_name),
                Some(place.object_key),
                Some(place.final_key),
                place.direct,
                place.create_only,
            ),
            None => (None, None, None, false, false),
        };
        TableIterator::once((
            Uuid::from_bytes(*admission.id.as_bytes()),
            Uuid::from_bytes(*admission.file_id.as_bytes()),
            admission.tenant,
            physical_name,
            object_key,
            final_key,
            direct,
            create_only,
            admission.created_at.column().or_raise(),
            admission.expires_at.column().or_raise(),
        ))
    }

    /// Inserts an upload request as the caller and gives the ticket for it.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn open_upload(
        bucket_id: Uuid,
        filename: Option<&str>,
        content_type: Option<&str>,
        size: Option<i64>,
        sha256: Option<&str>,
        path: Option<&str>,
        metadata: Jsonb,
        expires_in: Option<Interval>,
    ) -> TableIterator<
        'static,
        (
            name!(upload_id, Uuid),
            name!(file_id, Uuid),
            name!(deduplicated, bool),
            name!(method, String),
            name!(url, Option<String>),
            name!(headers, Option<JsonB>),
            name!(expires_at, Option<TimestampWithTimeZone>),
        ),
    > {
        let declared = declared(filename, content_type, size, sha256, path, expires_in);
        TableIterator::once(ticket_row(upload::open(bucket_id, Wanted { declared, metadata }).or_raise()))
    }

    type TicketRow = (Uuid, Uuid, bool, String, Option<String>, Option<JsonB>, Option<TimestampWithTimeZone>);

    fn ticket_row(ticket: Ticket) -> TicketRow {
        let deduplicated = ticket.upload.is_none();
        let (url, headers, expires_at) = match ticket.upload {
            Some((url, headers, expires_at)) => (Some(url), Some(headers), Some(expires_at)),
            None => (None, None, None),
        };
        (ticket.upload_id, ticket.file_id, deduplicated, "PUT".to_owned(), url, headers, expires_at)
    }

    /// Inserts many upload requests as the caller, all or none, and gives their tickets in the same order.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn open_uploads(
        bucket_id: Uuid,
        filenames: Option<Vec<Option<String>>>,
        content_types: Option<Vec<Option<String>>>,
        sizes: Option<Vec<Option<i64>>>,
        sha256s: Option<Vec<Option<String>>>,
        paths: Option<Vec<Option<String>>>,
        metadata: Option<Vec<Option<Jsonb>>>,
    ) -> TableIterator<
        'static,
        (
            name!(upload_id, Uuid),
            name!(file_id, Uuid),
            name!(deduplicated, bool),
            name!(method, String),
            name!(url, Option<String>),
            name!(headers, Option<JsonB>),
            name!(expires_at, Option<TimestampWithTimeZone>),
        ),
    > {
        // A list that is shorter than that of the names says nothing of the last files.
        fn nth<T>(list: &[Option<T>], at: usize) -> Option<&T> {
            list.get(at).and_then(Option::as_ref)
        }
        let filenames = filenames.unwrap_or_default();
        let content_types = content_types.unwrap_or_default();
        let sizes = sizes.unwrap_or_default();
        let sha256s = sha256s.unwrap_or_default();
        let paths = paths.unwrap_or_default();
        let mut metadata = metadata.unwrap_or_default();
        metadata.resize_with(filenames.len(), || None);
        let files = filenames
            .iter()
            .zip(metadata)
            .enumerate()
            .map(|(at, (filename, metadata))| Wanted {
                declared: declared(
                    filename.as_deref(),
                    nth(&content_types, at).map(String::as_str),
                    nth(&sizes, at).copied(),
                    nth(&sha256s, at).map(String::as_str),
                    nth(&paths, at).map(String::as_str),
                    None,
                ),
                metadata: metadata.unwrap_or_else(Jsonb::empty_object),
            })
            .collect();
        let tickets = upload::open_many(bucket_id, files).or_raise();
        TableIterator::new(tickets.into_iter().map(ticket_row))
    }

    /// Inserts an upload request as the caller and gives the form for it.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn open_form(
        bucket_id: Uuid,
        filename: Option<&str>,
        content_type: Option<&str>,
        max_size: Option<i64>,
        path: Option<&str>,
        metadata: Jsonb,
        expires_in: Option<Interval>,
    ) -> TableIterator<
        'static,
        (
            name!(upload_id, Uuid),
            name!(file_id, Uuid),
            name!(url, String),
            name!(fields, JsonB),
            name!(expires_at, TimestampWithTimeZone),
        ),
    > {
        let declared = declared(filename, content_type, max_size, None, path, expires_in);
        let form = upload::open_form(bucket_id, &Wanted { declared, metadata }).or_raise();
        TableIterator::once((form.upload_id, form.file_id, form.url, form.fields, form.expires_at))
    }

    /// Inserts an upload request as the caller and has the store begin an upload in parts for it.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn open_parts(
        bucket_id: Uuid,
        filename: Option<&str>,
        content_type: Option<&str>,
        size: Option<i64>,
        wanted_part_size: Option<i64>,
        sha256: Option<&str>,
        path: Option<&str>,
        metadata: Jsonb,
        expires_in: Option<Interval>,
        part_sha256s: bool,
    ) -> TableIterator<
        'static,
        (
            name!(upload_id, Uuid),
            name!(file_id, Uuid),
            name!(deduplicated, bool),
            name!(part_size, Option<i64>),
            name!(part_count, Option<i32>),
            name!(expires_at, Option<TimestampWithTimeZone>),
        ),
    > {
        let declared = declared(filename, content_type, size, sha256, path, expires_in);
        let file = Wanted { declared, metadata };
        let wanted = PartsWanted { file, part_size: wanted_part_size, sums: part_sha256s };
        let ticket = upload::open_parts(bucket_id, wanted).or_raise();
        let (parts, expires_at) = ticket.parts.unzip();
        let part_size = parts.map(|parts| i64::try_from(parts.part_size()).unwrap_or(i64::MAX));
        TableIterator::once((
            ticket.upload_id,
            ticket.file_id,
            parts.is_none(),
            part_size,
            parts.map(|parts| parts.count()),
            expires_at,
        ))
    }

    /// URLs for parts of an upload of the caller's own, in the order given.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn sign_parts(
        upload_id: Option<Uuid>,
        part_numbers: Option<Vec<Option<i32>>>,
        sha256s: Option<Vec<Option<String>>>,
    ) -> TableIterator<
        'static,
        (
            name!(part_number, i32),
            name!(first_byte, i64),
            name!(size, i64),
            name!(method, String),
            name!(url, String),
            name!(headers, JsonB),
            name!(expires_at, TimestampWithTimeZone),
        ),
    > {
        let numbers = part_numbers.unwrap_or_default();
        let signed = upload::sign_parts(upload_id, &numbers, sha256s).or_raise();
        TableIterator::new(signed.into_iter().map(|part| {
            let method = "PUT".to_owned();
            (part.number, part.first_byte, part.size, method, part.url, part.headers, part.expires_at)
        }))
    }

    /// The parts of an upload of the caller's own, and which of them the store has.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn arrived_parts(
        upload_id: Option<Uuid>,
    ) -> TableIterator<
        'static,
        (
            name!(part_number, i32),
            name!(first_byte, i64),
            name!(size, i64),
            name!(uploaded, bool),
            name!(etag, Option<String>),
            name!(sha256, Option<String>),
        ),
    > {
        let parts = upload::arrived_parts(upload_id).or_raise();
        TableIterator::new(
            parts
                .into_iter()
                .map(|part| (part.number, part.first_byte, part.size, part.uploaded, part.etag, part.sha256)),
        )
    }

    /// Asks the store what arrived and settles the upload.
    #[pg_extern(volatile)]
    fn confirm(upload_id: Option<Uuid>) {
        upload::confirm(&[or_nil(upload_id)]).or_raise();
    }

    /// Asks the store what arrived for many uploads, at once, and settles them.
    #[pg_extern(volatile)]
    fn confirm_all(upload_ids: Option<Vec<Option<Uuid>>>) {
        let ids: Vec<Uuid> = upload_ids.unwrap_or_default().into_iter().map(or_nil).collect();
        upload::confirm_many(&ids).or_raise();
    }

    /// Ends a pending upload.
    #[pg_extern(volatile)]
    fn abort(upload_id: Option<Uuid>) {
        upload::abort(or_nil(upload_id)).or_raise();
    }

    /// Presigned URLs of those of the files that the caller can see, in the order given.
    #[allow(clippy::type_complexity)]
    #[pg_extern(stable)]
    fn sign_downloads(
        file_ids: Option<Vec<Option<Uuid>>>,
        expires_in: Option<Interval>,
        attachment: Option<bool>,
        filename: Option<&str>,
    ) -> TableIterator<
        'static,
        (name!(file_id, Uuid), name!(url, String), name!(expires_at, TimestampWithTimeZone)),
    > {
        let ids: Vec<Uuid> = file_ids.unwrap_or_default().into_iter().flatten().collect();
        let wish = Wish { expires_in, attachment: attachment.unwrap_or(true), filename };
        TableIterator::new(download::sign(&ids, &wish).or_raise())
    }

    /// The stable URL of a file in a public bucket.
    #[pg_extern(stable)]
    fn unsigned_url(file_id: Option<Uuid>) -> String {
        download::public_url(or_nil(file_id)).or_raise()
    }

    /// A page of the files of a bucket that the caller may list.
    #[allow(clippy::type_complexity)]
    #[pg_extern(stable)]
    fn list_page(
        bucket_id: Uuid,
        prefix: &str,
        delimiter: Option<&str>,
        page_size: i32,
        page_token: Option<&str>,
        order_by: &str,
    ) -> TableIterator<
        'static,
        (
            name!(kind, &'static str),
            name!(path, Option<String>),
            name!(file_id, Option<Uuid>),
            name!(filename, Option<String>),
            name!(owner_id, Option<String>),
            name!(version, Option<i32>),
            name!(content_type, Option<String>),
            name!(size, Option<i64>),
            name!(sha256, Option<String>),
            name!(metadata, Option<String>),
            name!(expires_at, Option<TimestampWithTimeZone>),
            name!(created_at, Option<TimestampWithTimeZone>),
            name!(page_token, Option<String>),
        ),
    > {
        let Some(order) = Order::parse(order_by) else {
            Failure::internal(format!("unknown order {order_by}")).raise()
        };
        let bucket = uuid::Uuid::from_bytes(*bucket_id.as_bytes());
        let listing = Listing { bucket, prefix, delimiter, order };
        let entries = listing::page(&listing::Wish { listing, page_size, page_token }).or_raise();
        TableIterator::new(entries.into_iter().map(|listing::Entry { path, file, page_token }| match file {
            None => ("prefix", path, None, None, None, None, None, None, None, None, None, None, page_token),
            Some(file) => (
                "file",
                path,
                Some(file.id),
                Some(file.filename),
                Some(file.owner_id),
                Some(file.version),
                Some(file.content_type),
                Some(file.size),
                Some(file.sha256),
                Some(file.metadata),
                file.expires_at,
                Some(file.created_at),
                page_token,
            ),
        }))
    }

    /// Makes a file of bytes and gives its id.
    #[pg_extern(volatile)]
    fn put(
        bucket_id: Uuid,
        filename: Option<&str>,
        content: Option<&[u8]>,
        content_type: Option<&str>,
        path: Option<&str>,
        metadata: Jsonb,
    ) -> Uuid {
        let new = New {
            filename: filename.unwrap_or_default(),
            content_type: content_type.unwrap_or_default(),
            content: content.unwrap_or_default(),
            path,
            metadata,
        };
        contents::put(bucket_id, new).or_raise()
    }

    /// The bytes of a file that the caller may download.
    #[pg_extern(stable)]
    fn get(file_id: Option<Uuid>) -> Vec<u8> {
        contents::get(or_nil(file_id)).or_raise()
    }

    /// Makes a second file with the bytes of one that the caller may download, and gives its id.
    #[pg_extern(volatile)]
    fn copy(
        file_id: Option<Uuid>,
        bucket_id: Option<Uuid>,
        path: Option<&str>,
        filename: Option<&str>,
    ) -> Uuid {
        places::copy(or_nil(file_id), bucket_id, path, filename).or_raise()
    }

    /// Moves a file that the caller may change.
    #[pg_extern(volatile)]
    fn relocate(file_id: Option<Uuid>, bucket_id: Option<Uuid>, path: Option<&str>) {
        places::relocate(or_nil(file_id), bucket_id, path).or_raise();
    }

    /// The ids of files that are described so and that the caller may list.
    #[pg_extern(stable)]
    fn search(
        bucket_id: Uuid,
        description: Option<&str>,
        page_size: i32,
        after: Option<Uuid>,
    ) -> SetOfIterator<'static, Uuid> {
        let found = search::described(bucket_id, description.unwrap_or_default(), page_size, or_nil(after));
        SetOfIterator::new(found.or_raise())
    }

    /// Looks at objects that others brought in, where they are; one row for each, in order.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn look_at_objects(
        physical_name: &str,
        check_bytes: bool,
        keys: Vec<Option<String>>,
        sizes: Vec<Option<i64>>,
        sha256s: Vec<Option<String>>,
        content_types: Vec<Option<String>>,
    ) -> TableIterator<
        'static,
        (
            name!(reason, Option<String>),
            name!(details, Option<String>),
            name!(sha256, Option<Vec<u8>>),
            name!(size, Option<i64>),
            name!(content_type, Option<String>),
            name!(etag, Option<String>),
        ),
    > {
        let said: Vec<found::Said<'_>> = keys
            .iter()
            .zip(&sizes)
            .zip(&sha256s)
            .zip(&content_types)
            .map(|(((key, size), sha256), content_type)| found::Said {
                key: key.as_deref().unwrap_or_default(),
                size: *size,
                sha256: sha256.as_deref(),
                content_type: content_type.as_deref(),
            })
            .collect();
        let looked = found::look(physical_name, check_bytes, &said).or_raise();
        TableIterator::new(looked.into_iter().map(|answer| match answer {
            Ok(seen) => {
                let sha256 = seen.sha256.as_bytes().to_vec();
                (None, None, Some(sha256), Some(seen.size), Some(seen.content_type), seen.etag)
            }
            Err(obstacle) => (Some(obstacle.reason), obstacle.details, None, None, None, None),
        }))
    }

    /// The endpoint of the store, which has this bucket.
    #[pg_extern(volatile)]
    fn keeper_of(physical_name: &str) -> String {
        found::keeper(physical_name).or_raise()
    }

    /// Provisions a bucket now and gives the name of its physical bucket.
    #[pg_extern(volatile)]
    fn provision(bucket_id: Uuid) -> String {
        Bucket::visible(bucket_id)
            .and_then(|bucket| provision::ensure(&bucket, Ask::Explicit))
            .or_raise()
            .name
    }

    /// Marks a bucket that the caller may delete, and gives the time.
    #[pg_extern(volatile)]
    fn mark_bucket_deleted(bucket_id: Option<Uuid>) -> TimestampWithTimeZone {
        bucket_deletion::mark(or_nil(bucket_id)).or_raise()
    }

    /// Whether this session is just having a bucket marked.
    #[pg_extern(volatile)]
    fn is_being_marked(bucket_id: Uuid) -> bool {
        bucket_deletion::is_being_marked(bucket_id)
    }

    /// What the store says of a bucket's physical bucket.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn inspect_bucket(
        bucket_id: Uuid,
    ) -> TableIterator<
        'static,
        (
            name!(physical_name, String),
            name!(exists, bool),
            name!(public_access_block, Option<JsonB>),
            name!(policy, Option<JsonB>),
            name!(cors, Option<JsonB>),
            name!(lifecycle, Option<JsonB>),
            name!(versioning, Option<JsonB>),
        ),
    > {
        let (physical, inspection) = read_back(bucket_id).or_raise();
        let part = |name: &str| inspection.get(name).filter(|part| !part.is_null()).cloned().map(JsonB);
        let exists = inspection.get("exists").and_then(serde_json::Value::as_bool).unwrap_or(false);
        TableIterator::once((
            physical,
            exists,
            part("public_access_block"),
            part("policy"),
            part("cors"),
            part("lifecycle"),
            part("versioning"),
        ))
    }

    fn read_back(bucket_id: Uuid) -> error::Result<(String, serde_json::Value)> {
        let bucket = Bucket::visible(bucket_id)?;
        let config = config::current()?;
        let physical = provision::physical_name(&config, &bucket)?;
        let (store, name) = (session::store(&config)?, physical.clone());
        let inspection = wait::until(async move { inspect(&store, &name).await })?;
        // A store that cannot be reached describes nothing.
        if let pg_storage_store::Reading::Error(error) = inspection.exists {
            return Err(error.into());
        }
        let json = serde_json::to_value(inspection).map_err(|error| Failure::internal(error.to_string()))?;
        Ok((physical, json))
    }

    /// One pass of everything the worker does.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn maintain() -> TableIterator<
        'static,
        (
            name!(uploads_expired, i64),
            name!(uploads_confirmed, i64),
            name!(files_expired, i64),
            name!(objects_deleted, i64),
            name!(deletions_failed, i64),
            name!(buckets_provisioned, i64),
            name!(buckets_deleted, i64),
            name!(orphans_queued, i64),
            name!(multiparts_aborted, i64),
            name!(events_announced, i64),
            name!(events_removed, i64),
        ),
    > {
        let report = maintenance::run().or_raise();
        TableIterator::once((
            report.uploads_expired,
            report.uploads_confirmed,
            report.files_expired,
            report.objects_deleted,
            report.deletions_failed,
            report.buckets_provisioned,
            report.buckets_deleted,
            report.orphans_queued,
            report.multiparts_aborted,
            report.events_announced,
            report.events_removed,
        ))
    }

    /// Starts a worker for the current database.
    #[pg_extern(volatile)]
    fn start_worker() -> i32 {
        worker::start().or_raise()
    }

    /// Wakes the worker of this database once this transaction commits.
    #[pg_extern(volatile)]
    fn wake_worker() {
        worker::wake::at_commit();
    }

    /// Compares a physical bucket with the tables, both ways, a page at a time.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn scan(
        physical_name: Option<&str>,
        min_age: Interval,
        repair: bool,
    ) -> TableIterator<
        'static,
        (
            name!(kind, String),
            name!(key, String),
            name!(object_id, Option<Uuid>),
            name!(size, i64),
            name!(last_modified, Option<TimestampWithTimeZone>),
            name!(queued, bool),
        ),
    > {
        let repair = if repair { Repair::Waiting } else { Repair::Not };
        let findings =
            orphans::findings(physical_name.unwrap_or_default(), min_age, repair).or_raise().map(|finding| {
                let finding = finding.or_raise();
                let modified = finding.last_modified.and_then(|time| Moment::of_system(time).column().ok());
                let kind = finding.kind.as_str().to_owned();
                (kind, finding.key, finding.object, finding.size, modified, finding.queued)
            });
        TableIterator::new(findings)
    }

    /// Findings about settings, store and what it enforces.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn diagnose() -> TableIterator<
        'static,
        (
            name!(name, String),
            name!(status, String),
            name!(detail, Option<String>),
            name!(hint, Option<String>),
        ),
    > {
        TableIterator::new(diagnose::run())
    }

    /// Counters of the cache.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn cache_statistics() -> TableIterator<
        'static,
        (
            name!(shared, bool),
            name!(capacity, i32),
            name!(entries, i32),
            name!(hits, i64),
            name!(misses, i64),
            name!(provisionings, i64),
            name!(evictions, i64),
        ),
    > {
        let (shared, capacity, entries, counters) = cache::statistics();
        TableIterator::once((
            shared,
            capacity as i32,
            entries as i32,
            counters.hits as i64,
            counters.misses as i64,
            counters.provisionings as i64,
            counters.evictions as i64,
        ))
    }

    /// Entries of the cache that belong to this database.
    #[pg_extern(volatile)]
    fn cache_entries() -> TableIterator<
        'static,
        (name!(physical_name, String), name!(endpoint, String), name!(generation, i64), name!(direct, bool)),
    > {
        TableIterator::new(
            cache::entries()
                .into_iter()
                .map(|(name, endpoint, ready)| (name, endpoint, ready.generation, ready.direct)),
        )
    }

    /// Empties the cache of this database.
    #[pg_extern(volatile)]
    fn clear_cache() {
        cache::clear();
    }

    /// Forgets a physical bucket once this transaction commits.
    #[pg_extern(volatile)]
    fn forget_at_commit(physical_name: &str) {
        cache::evict_at(cache::At::Commit, physical_name);
    }
}
