//! Pages of a bucket's files, in one of three orders, with folders where a delimiter makes them.
//!
//! All is asked as the caller and as a listing, so what row-level security hides has neither an entry nor a folder. A
//! folder is no row but the first of those in it. Nothing here writes.

use pg_storage_core::error::Token;
use pg_storage_core::page_token::{self, Listing, Order, Position};
use pg_storage_core::prefix::{AFTER_ALL, end_of, folder_of, next_after};
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use uuid::Uuid;

use crate::clock::Moment;
use crate::error::{Failure, Result};
use crate::operation::Operation;
use crate::{catalog, installation};

/// The most entries of a page.
const MAX_PAGE: i32 = 1000;

/// What is asked for.
pub struct Wish<'a> {
    /// What is listed.
    pub listing: Listing<'a>,
    /// Entries at most.
    pub page_size: i32,
    /// As a page before gave it.
    pub page_token: Option<&'a str>,
}

/// A file or a folder.
pub struct Entry {
    /// Path of the file, if it has one; of the folder, delimiter included.
    pub path: Option<String>,
    /// `None`: it is a folder.
    pub file: Option<File>,
    /// On the last entry of a page that is not the last.
    pub page_token: Option<String>,
}

/// The columns of a file that a listing shows.
pub struct File {
    /// Its id.
    pub id: pgrx::Uuid,
    /// Its name.
    pub filename: String,
    /// Whose it is.
    pub owner_id: String,
    /// Its version.
    pub version: i32,
    /// MIME type.
    pub content_type: String,
    /// Bytes.
    pub size: i64,
    /// 64 lower-case hex.
    pub sha256: String,
    /// What was said of it, as PostgreSQL spells it.
    pub metadata: String,
    /// When it ends.
    pub expires_at: Option<TimestampWithTimeZone>,
    /// When it came to be.
    pub created_at: TimestampWithTimeZone,
}

/// A question for the current files of bucket $1.
macro_rules! files {
    ($($rest:literal),+) => {
        concat!(
            "SELECT f.path, f.id, f.filename, f.owner_id, f.version, f.content_type, f.size, f.sha256, f.metadata::pg_catalog.text,
                    f.expires_at, f.created_at
             FROM storage.files f
             WHERE f.bucket_id OPERATOR(pg_catalog.=) $1 AND f.is_current
               AND (f.expires_at IS NULL OR f.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()) AND ",
            $($rest),+
        )
    };
}

/// The first so many by path from a place on.
macro_rules! by_path {
    ($begin:literal, $count:literal) => {
        files!(
            "f.path COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.>=) ",
            $begin,
            " AND f.path COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.<) $3 ORDER BY f.path COLLATE pg_catalog.\"C\" LIMIT ",
            $count
        )
    };
}

const BY_PATH: &str = by_path!("$2", "$4");

/// From entry to entry: the next one is the first after the file, or after all that is in the folder, whose end is told by
/// what comes after the delimiter. Each is looked up in the index, whatever lies between, and only what the caller sees is
/// gone on from.
///
/// OFFSET 0 has the place made before anything is compared with it: else, under policies, all rows from the bucket's
/// beginning on would be read, and compared after them.
const IN_FOLDERS: &str = concat!(
    "WITH RECURSIVE entry AS ((",
    by_path!("$2", "1"),
    ") UNION ALL SELECT n.* FROM (
         SELECT $5 OPERATOR(pg_catalog.||) pg_catalog.split_part(r.rest, $6, 1) OPERATOR(pg_catalog.||)
                CASE WHEN pg_catalog.strpos(r.rest, $6) OPERATOR(pg_catalog.>) 0 THEN $7 ELSE pg_catalog.chr(1) END AS place
         FROM (SELECT pg_catalog.substr(e.path, pg_catalog.length($5) OPERATOR(pg_catalog.+) 1) AS rest FROM entry e) r
         OFFSET 0
     ) next CROSS JOIN LATERAL (",
    by_path!("next.place", "1"),
    ") n) SELECT * FROM entry LIMIT $4"
);

const PATHLESS: &str = files!("f.path IS NULL AND f.id OPERATOR(pg_catalog.>) $2 ORDER BY f.id LIMIT $3");
const NEWEST: &str = files!(
    "(f.created_at, f.id) OPERATOR(pg_catalog.<) ($2, $3) ORDER BY f.created_at DESC, f.id DESC LIMIT $4"
);
const LARGEST: &str =
    files!("(f.size, f.id) OPERATOR(pg_catalog.<) ($2, $3) ORDER BY f.size DESC, f.id DESC LIMIT $4");

/// What no index has in order: below a prefix and not by path. OFFSET 0 has the planner find all below the prefix first,
/// where it would else go through the whole bucket in order for want of a better guess.
macro_rules! below {
    ($order:literal) => {
        concat!(
            "SELECT f.* FROM (",
            files!(
                "f.path COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.>=) $5 AND f.path COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.<) $6
                 OFFSET 0"
            ),
            ") f WHERE ",
            $order
        )
    };
}

const NEWEST_BELOW: &str = below!(
    "(f.created_at, f.id) OPERATOR(pg_catalog.<) ($2, $3) ORDER BY f.created_at DESC, f.id DESC LIMIT $4"
);
const LARGEST_BELOW: &str =
    below!("(f.size, f.id) OPERATOR(pg_catalog.<) ($2, $3) ORDER BY f.size DESC, f.id DESC LIMIT $4");

/// The entries of a page.
///
/// # Errors
/// `INVALID_LIMIT`, `INVALID_DELIMITER`, `INVALID_PAGE_TOKEN`.
pub fn page(wish: &Wish<'_>) -> Result<Vec<Entry>> {
    let Wish { listing, page_size, page_token } = wish;
    if !(1..=MAX_PAGE).contains(page_size) {
        return Err(Failure::new(Token::InvalidLimit, format!("a page has 1 to {MAX_PAGE} entries"))
            .detail(format!("Asked for {page_size}."))
            .hint("Ask for the next page with page_token for more."));
    }
    if listing.delimiter.is_some() && listing.order != Order::Path {
        return Err(Failure::new(Token::InvalidDelimiter, "folders are listed by path only")
            .detail("A delimiter was given with another order.")
            .hint("Leave the delimiter out to sort all files, or sort by path."));
    }
    let begin = match page_token {
        Some(token) => Some(page_token::open(&installation::secret()?, listing, token)?),
        None => None,
    };
    // One more than asked for tells whether there is a next page.
    let wanted = page_size.unsigned_abs() as usize + 1;
    let mut entries = match listing.order {
        Order::Path => by_path(listing, begin, wanted)?,
        Order::Newest | Order::Largest => in_order(listing, begin, wanted)?,
    };
    if entries.len() == wanted {
        entries.pop();
        if let Some(last) = entries.last_mut() {
            last.page_token =
                Some(page_token::seal(&installation::secret()?, listing, &after(listing.order, last)));
        }
    }
    Ok(entries)
}

fn by_path(listing: &Listing<'_>, begin: Option<Position>, wanted: usize) -> Result<Vec<Entry>> {
    let (from, pathless) = match begin {
        None => (Some(listing.prefix.to_owned()), Uuid::nil()),
        Some(Position::Path(path)) => (Some(path), Uuid::nil()),
        Some(Position::Pathless(id)) => (None, id),
        Some(_) => return Err(Failure::internal("a position is of another order")),
    };
    let mut entries = Vec::new();
    if let Some(start) = from {
        let mut arguments =
            vec![bucket(listing), start.into(), end(listing.prefix).into(), (wanted as i64).into()];
        let mut query = BY_PATH;
        if let Some(delimiter) = listing.delimiter {
            arguments.extend([listing.prefix.into(), delimiter.into(), end(delimiter).into()]);
            query = IN_FOLDERS;
        }
        entries = catalog::in_index_order(|| ask(listing, query, &arguments))?;
    }
    // What has no path is in no folder, and begins with nothing.
    if listing.prefix.is_empty() && entries.len() < wanted {
        let arguments = [bucket(listing), sql(pathless).into(), ((wanted - entries.len()) as i64).into()];
        entries.extend(catalog::in_index_order(|| ask(listing, PATHLESS, &arguments))?);
    }
    Ok(entries)
}

fn in_order(listing: &Listing<'_>, begin: Option<Position>, wanted: usize) -> Result<Vec<Entry>> {
    let (value, id): (DatumWithOid<'_>, _) = match (listing.order, begin) {
        (Order::Newest, None) => (TimestampWithTimeZone::positive_infinity().into(), Uuid::max()),
        (Order::Newest, Some(Position::Newest(time, id))) => (Moment::of_micros(time).column()?.into(), id),
        (Order::Largest, None) => (i64::MAX.into(), Uuid::max()),
        (Order::Largest, Some(Position::Largest(size, id))) => (size.into(), id),
        _ => return Err(Failure::internal("a position is of another order")),
    };
    let mut arguments = vec![bucket(listing), value, sql(id).into(), (wanted as i64).into()];
    let everywhere = listing.prefix.is_empty();
    if !everywhere {
        arguments.extend([listing.prefix.into(), end(listing.prefix).into()]);
    }
    match (listing.order, everywhere) {
        (Order::Newest, true) => catalog::in_index_order(|| ask(listing, NEWEST, &arguments)),
        (Order::Newest, false) => ask(listing, NEWEST_BELOW, &arguments),
        (_, true) => catalog::in_index_order(|| ask(listing, LARGEST, &arguments)),
        (_, false) => ask(listing, LARGEST_BELOW, &arguments),
    }
}

/// Where the page after this entry begins.
fn after(order: Order, entry: &Entry) -> Position {
    match (&entry.file, &entry.path, order) {
        (Some(file), _, Order::Newest) => {
            Position::Newest(Moment::of(file.created_at).micros(), core(file.id))
        }
        (Some(file), _, Order::Largest) => Position::Largest(file.size, core(file.id)),
        (Some(file), None, Order::Path) => Position::Pathless(core(file.id)),
        (Some(_), Some(path), Order::Path) => Position::Path(next_after(path)),
        (None, folder, _) => Position::Path(end(folder.as_deref().unwrap_or_default())),
    }
}

fn ask(listing: &Listing<'_>, query: &'static str, arguments: &[DatumWithOid<'_>]) -> Result<Vec<Entry>> {
    let missing = || Failure::internal("a file lacks a column");
    Operation::List.during(|| {
        catalog::read(query, arguments, |rows| {
            rows.map(|row| {
                let path: Option<String> = row.get(1)?;
                if let (Some(path), Some(delimiter)) = (&path, listing.delimiter)
                    && let Some(folder) = folder_of(path, listing.prefix, delimiter)
                {
                    return Ok(Entry { path: Some(folder.to_owned()), file: None, page_token: None });
                }
                Ok(Entry {
                    path,
                    file: Some(File {
                        id: row.get(2)?.ok_or_else(missing)?,
                        filename: row.get(3)?.ok_or_else(missing)?,
                        owner_id: row.get(4)?.ok_or_else(missing)?,
                        version: row.get(5)?.ok_or_else(missing)?,
                        content_type: row.get(6)?.ok_or_else(missing)?,
                        size: row.get(7)?.ok_or_else(missing)?,
                        sha256: row.get(8)?.ok_or_else(missing)?,
                        metadata: row.get(9)?.ok_or_else(missing)?,
                        expires_at: row.get(10)?,
                        created_at: row.get(11)?.ok_or_else(missing)?,
                    }),
                    page_token: None,
                })
            })
            .collect()
        })
    })
}

/// What comes after all paths that begin with this.
fn end(text: &str) -> String {
    end_of(text).unwrap_or_else(|| AFTER_ALL.to_owned())
}

fn bucket(listing: &Listing<'_>) -> DatumWithOid<'static> {
    sql(listing.bucket).into()
}

fn sql(id: Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}

fn core(id: pgrx::Uuid) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}
