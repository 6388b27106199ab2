//! Files: their URLs, their bytes, and where they are.

use pgrx::pg_schema;

#[pg_schema]
mod storage_private {
    use pg_storage_core::page_token::{Listing, Order};
    use pgrx::Uuid;
    use pgrx::datum::{Interval, TimestampWithTimeZone};
    use pgrx::prelude::*;

    use crate::api::or_nil;
    use crate::download::{self, Wish};
    use crate::error::{Failure, OrRaise};
    use crate::files::contents::{self, New};
    use crate::files::{found, listing, places, search};
    use crate::json::Jsonb;

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

    /// Moves a file that the caller may change, alone or with the earlier versions of its path.
    #[pg_extern(volatile)]
    fn relocate(
        file_id: Option<Uuid>,
        bucket_id: Option<Uuid>,
        path: Option<&str>,
        with_earlier: Option<bool>,
    ) {
        places::relocate(or_nil(file_id), bucket_id, path, with_earlier.unwrap_or(false)).or_raise();
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
}
