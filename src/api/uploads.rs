//! Uploads: asked for, in each of their forms, and ended.

use pgrx::pg_schema;

#[pg_schema]
mod storage_private {
    use pgrx::datum::{Interval, TimestampWithTimeZone};
    use pgrx::prelude::*;
    use pgrx::{AllocatedByRust, IntoDatum, JsonB, Uuid, composite_type};

    use crate::api::or_nil;
    use crate::bucket::Bucket;
    use crate::error::OrRaise;
    use crate::json::Jsonb;
    use crate::upload::{self, Declared, PartsWanted, Ticket, Wanted};
    use crate::{limits, row};

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

    /// Validates an upload request that is to be inserted and fills what only the server may choose.
    #[pg_trigger]
    fn admit_upload<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
        Ok(Some(upload::admit(trigger).or_raise()))
    }

    /// Inserts an upload request as the caller and gives the ticket for it.
    #[allow(clippy::too_many_arguments)]
    #[pg_extern(volatile)]
    fn open_upload(
        bucket: Option<&str>,
        filename: Option<&str>,
        content_type: Option<&str>,
        size: Option<i64>,
        sha256: Option<&str>,
        path: Option<&str>,
        metadata: Option<Jsonb>,
        expires_in: Option<Interval>,
        call: pg_sys::FunctionCallInfo,
    ) -> composite_type!('static, "storage.upload_ticket") {
        let declared = declared(filename, content_type, size, sha256, path, expires_in);
        let wanted = Wanted { declared, metadata: metadata.unwrap_or_else(Jsonb::empty_object) };
        let ticket =
            upload::destination(|| Bucket::named(bucket)).and_then(|bucket| upload::open(&bucket, wanted));
        let (upload_id, file_id, deduplicated, method, url, headers, expires_at) =
            ticket_row(ticket.or_raise());
        let values = vec![
            upload_id.into_datum(),
            file_id.into_datum(),
            deduplicated.into_datum(),
            method.into_datum(),
            url.into_datum(),
            headers.into_datum(),
            expires_at.into_datum(),
        ];
        row::returned(call, values).or_raise()
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

    /// Inserts many upload requests as the caller, all or none, and gives their tickets in the same order. The lists have one
    /// length.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn open_uploads(
        bucket: Option<&str>,
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
        let (filenames, content_types) = (filenames.unwrap_or_default(), content_types.unwrap_or_default());
        let (sizes, sha256s) = (sizes.unwrap_or_default(), sha256s.unwrap_or_default());
        let (paths, metadata) = (paths.unwrap_or_default(), metadata.unwrap_or_default());
        let files = filenames
            .iter()
            .zip(&content_types)
            .zip(&sizes)
            .zip(&sha256s)
            .zip(&paths)
            .zip(metadata)
            .map(|(((((filename, content_type), size), sha256), path), metadata)| Wanted {
                declared: declared(
                    filename.as_deref(),
                    content_type.as_deref(),
                    *size,
                    sha256.as_deref(),
                    path.as_deref(),
                    None,
                ),
                metadata: metadata.unwrap_or_else(Jsonb::empty_object),
            })
            .collect();
        let tickets = upload::destination(|| Bucket::named(bucket))
            .and_then(|bucket| upload::open_many(&bucket, files))
            .or_raise();
        TableIterator::new(tickets.into_iter().map(ticket_row))
    }

    /// Inserts an upload request as the caller and gives the form for it.
    #[allow(clippy::too_many_arguments)]
    #[pg_extern(volatile)]
    fn open_form(
        bucket: Option<&str>,
        filename: Option<&str>,
        content_type: Option<&str>,
        max_size: Option<i64>,
        path: Option<&str>,
        metadata: Option<Jsonb>,
        expires_in: Option<Interval>,
        call: pg_sys::FunctionCallInfo,
    ) -> composite_type!('static, "storage.upload_form") {
        let declared = declared(filename, content_type, max_size, None, path, expires_in);
        let wanted = Wanted { declared, metadata: metadata.unwrap_or_else(Jsonb::empty_object) };
        let form = upload::destination(|| Bucket::named(bucket))
            .and_then(|bucket| upload::open_form(&bucket, &wanted))
            .or_raise();
        let values = vec![
            form.upload_id.into_datum(),
            form.file_id.into_datum(),
            form.url.into_datum(),
            form.fields.into_datum(),
            form.expires_at.into_datum(),
        ];
        row::returned(call, values).or_raise()
    }

    /// Inserts an upload request as the caller and has the store begin an upload in parts for it.
    #[allow(clippy::too_many_arguments)]
    #[pg_extern(volatile)]
    fn open_parts(
        bucket: Option<&str>,
        filename: Option<&str>,
        content_type: Option<&str>,
        size: Option<i64>,
        wanted_part_size: Option<i64>,
        sha256: Option<&str>,
        path: Option<&str>,
        metadata: Option<Jsonb>,
        expires_in: Option<Interval>,
        part_sha256s: Option<bool>,
        call: pg_sys::FunctionCallInfo,
    ) -> composite_type!('static, "storage.multipart_ticket") {
        let declared = declared(filename, content_type, size, sha256, path, expires_in);
        let file = Wanted { declared, metadata: metadata.unwrap_or_else(Jsonb::empty_object) };
        let wanted = PartsWanted { file, part_size: wanted_part_size, sums: part_sha256s.unwrap_or(false) };
        let ticket = upload::destination(|| Bucket::named(bucket))
            .and_then(|bucket| upload::open_parts(&bucket, wanted))
            .or_raise();
        let (parts, expires_at) = ticket.parts.unzip();
        let values = vec![
            ticket.upload_id.into_datum(),
            ticket.file_id.into_datum(),
            parts.is_none().into_datum(),
            parts.map(|parts| i64::try_from(parts.part_size()).unwrap_or(i64::MAX)).into_datum(),
            parts.map(|parts| parts.count()).into_datum(),
            expires_at.into_datum(),
        ];
        row::returned(call, values).or_raise()
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
        let signed = upload::sign_parts(or_nil(upload_id), &numbers, sha256s).or_raise();
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
        let parts = upload::arrived_parts(or_nil(upload_id)).or_raise();
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
}
