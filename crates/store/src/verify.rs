//! What confirming an upload asks the store: are exactly the promised bytes there?
//!
//! Two ways, chosen by what the store was seen to enforce. *Direct*: the store refused every other body at upload,
//! so a HEAD is enough. *Staged*: the bytes are copied to a key that no URL names, and read there through SHA-256.
//! What was there before anybody asked us, [`found`] looks at where it is.
//!
//! Nothing is deleted here, not even a copy that turns out wrong: a DELETE that the store executes late would meet the
//! copy of a later try. What is to go is the caller's business.

use pg_storage_core::agreement;
use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::policy::Access;

use crate::copy::{Source, copy};
use crate::error::{ErrorKind, StoreError};
use crate::probe::{Capabilities, Support};
use crate::store::{Description, HEAD_BYTES, HashOutcome, ObjectHash, Store};

/// What the upload promised.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its length in bytes.
    pub size: u64,
    /// Whether it may have fewer: a form permits a range.
    pub at_most: bool,
    /// Its SHA-256, if declared.
    pub sha256: Option<Digest>,
    /// Its content type.
    pub content_type: ContentType,
    /// Whether the leading bytes must agree with the content type.
    pub check_bytes: bool,
    /// What the object must carry as a mark, on a store where an upload can become a copy of another object.
    pub mark: Option<String>,
    /// What the kept object shall tell caches; `None`: nothing that lets strangers keep it.
    pub cache_control: Option<&'static str>,
}

/// What was found. When several things are wrong, the first in this order is reported, except that [`staged`] does not
/// copy, and so does not hash, what is stored with another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing has arrived.
    Absent,
    /// An object without bytes.
    Empty,
    /// Another length. When reading stopped at a limit, `found` may be less than the whole.
    SizeMismatch {
        /// Bytes promised.
        declared: u64,
        /// Bytes found.
        found: u64,
    },
    /// Other bytes.
    HashMismatch {
        /// The SHA-256 promised.
        declared: Digest,
        /// The SHA-256 found.
        found: Digest,
    },
    /// Another content type, by the store's record or by the leading bytes, or one under a content encoding.
    ContentTypeMismatch {
        /// The type promised.
        declared: String,
        /// The type found.
        found: String,
    },
    /// All as promised.
    Verified {
        /// Its length in bytes.
        size: u64,
        /// Its SHA-256: enforced by the store at upload, or computed here.
        sha256: Digest,
        /// The entity tag of the object to be kept, as sent.
        etag: Option<String>,
        /// The content type it is stored with.
        content_type: String,
    },
}

/// Looks at an upload that the store itself held to its declared hash, at its final key.
///
/// Where the store gives checksums and this object has none, it did not come through our URL: then it is read.
///
/// # Errors
/// `Invalid` if no hash was declared, `NoSuchBucket` if the bucket is gone, and whatever the calls fail with.
pub async fn direct(
    store: &impl Store,
    bucket: &str,
    key: &str,
    expected: &Expected,
    capabilities: &Capabilities,
) -> Result<Finding, StoreError> {
    let Some(declared) = expected.sha256 else {
        let message = "an upload without a declared hash cannot be verified by HEAD";
        return Err(StoreError::local(ErrorKind::Invalid, "HeadObject", message));
    };
    match in_place(store, bucket, key, expected, declared, capabilities).await {
        Ok(Some(finding)) => Ok(finding),
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        _ => absent(store, bucket).await,
    }
}

/// Copies an upload to its final key, which no URL names, and reads the copy through SHA-256: what is hashed is what
/// is kept, whatever happens to the staging object meanwhile. The staging object stays.
///
/// Memory does not grow with the object, and reading stops beyond the promised size.
///
/// # Errors
/// `NoSuchBucket` if the bucket is gone, `Precondition` if the object was replaced before it was
/// copied, `NotFound` if the store reports a copy and then has none, and whatever the calls fail with.
pub async fn staged(
    store: &impl Store,
    bucket: &str,
    staging_key: &str,
    final_key: &str,
    expected: &Expected,
    capabilities: &Capabilities,
) -> Result<Finding, StoreError> {
    let Some(head) = store.head(bucket, staging_key).await? else { return absent(store, bucket).await };
    if let Some(finding) = foreign(expected, head.mark.as_deref()).or_else(|| wrong_size(expected, head.size))
    {
        return Ok(finding);
    }
    let content_type = match agreed_type(expected, head.content_type, None) {
        Ok(content_type) => content_type,
        Err(mismatch) => return Ok(mismatch),
    };
    // The pin keeps a copy that is executed late, after its caller gave up, from bringing other bytes.
    let honoured = capabilities.copy_source_if_match == Support::Enforced;
    let pin = head.etag.as_deref().filter(|_| honoured);
    // A mark has to be seen on what is kept, for the staging object may be another one by now.
    let described = Description { content_type: &content_type, cache_control: expected.cache_control };
    let replaced = expected.mark.is_none().then_some(described);
    let source = Source { bucket, key: staging_key, size: head.size, etag: pin };
    match copy(store, source, bucket, final_key, replaced).await {
        Ok(()) => {
            let finding = read(store, bucket, final_key, expected).await?;
            let silent = replaced.is_none() && head.cache_control.as_deref() != expected.cache_control;
            match expected.cache_control.filter(|_| silent) {
                Some(said) => say(store, bucket, final_key, finding, said).await,
                None => Ok(finding),
            }
        }
        // It went after the HEAD.
        Err(error) if error.kind == ErrorKind::NotFound => absent(store, bucket).await,
        Err(error) => Err(error),
    }
}

/// Makes a verified copy that kept its mark tell caches what it has to: a store that has marks loses the field of a form.
/// No URL names its key, so it still has the bytes that were read.
async fn say(
    store: &impl Store,
    bucket: &str,
    key: &str,
    finding: Finding,
    cache_control: &'static str,
) -> Result<Finding, StoreError> {
    let Finding::Verified { size, sha256, etag, content_type } = finding else {
        return Ok(finding);
    };
    let described = Description { content_type: &content_type, cache_control: Some(cache_control) };
    // What carries a mark came in one piece, and is copied as one.
    let copied = store.copy(bucket, key, bucket, key, None, Some(described)).await?;
    Ok(Finding::Verified { size, sha256, etag: copied.or(etag), content_type })
}

/// What somebody says of an object that did not come through us.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// Its length in bytes, if known.
    pub size: Option<u64>,
    /// Its SHA-256, if known.
    pub sha256: Option<Digest>,
    /// Its content type; `None`: what the store has it with.
    pub content_type: Option<ContentType>,
    /// Whether the leading bytes must agree with the content type.
    pub check_bytes: bool,
}

/// Looks at an object that others brought in, where it is.
///
/// Its hash is the store's word only where the store was seen to refuse other bytes than those of a declared hash, and the
/// object was not put together from parts; else it is read through SHA-256. Memory does not grow with it.
///
/// # Errors
/// `NoSuchBucket` if the bucket is gone, and whatever the calls fail with.
pub async fn found(
    store: &impl Store,
    bucket: &str,
    key: &str,
    claim: &Claim,
    capabilities: &Capabilities,
) -> Result<Finding, StoreError> {
    let Some(head) = store.head(bucket, key).await? else { return absent(store, bucket).await };
    let stored = head.content_type.as_deref().and_then(|stored| ContentType::parse(stored).ok());
    let content_type = match claim.content_type.clone().or(stored) {
        Some(content_type) => content_type,
        None => ContentType::parse("application/octet-stream")
            .map_err(|invalid| StoreError::local(ErrorKind::Invalid, "HeadObject", invalid.to_string()))?,
    };
    let expected = Expected {
        size: claim.size.unwrap_or(head.size),
        at_most: false,
        sha256: claim.sha256,
        content_type,
        check_bytes: claim.check_bytes,
        mark: None,
        // What an object said that others brought in is their word, and stays.
        cache_control: Access::Public.cache_control(),
    };
    if let Some(finding) = wrong_size(&expected, head.size) {
        return Ok(finding);
    }
    // The entity tag of parts has their number behind a hyphen; a sum of theirs may look like one of the whole.
    let whole = head.etag.as_deref().is_some_and(|etag| !etag.contains('-'));
    let believed = whole && capabilities.checksum == Support::Enforced;
    let looked = match head.sha256.filter(|_| believed) {
        Some(recorded) => {
            let declared = expected.sha256.unwrap_or(recorded);
            in_place(store, bucket, key, &expected, declared, capabilities).await
        }
        None => read(store, bucket, key, &expected).await.map(Some),
    };
    match looked {
        Ok(Some(finding)) => Ok(finding),
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        // It went after the HEAD.
        _ => absent(store, bucket).await,
    }
}

/// What the final key of a direct upload holds. `None` if nothing at the HEAD, `NotFound` if nothing at a GET: an upload
/// may arrive or go between the two.
async fn in_place(
    store: &impl Store,
    bucket: &str,
    key: &str,
    expected: &Expected,
    declared: Digest,
    capabilities: &Capabilities,
) -> Result<Option<Finding>, StoreError> {
    let (head, leading) = if expected.check_bytes {
        let len = HEAD_BYTES as u64;
        let (head, leading) = tokio::join!(store.head(bucket, key), store.get_range(bucket, key, 0, len));
        (head?, Some(leading))
    } else {
        (store.head(bucket, key).await?, None)
    };
    let Some(head) = head else { return Ok(None) };
    if let Some(finding) = foreign(expected, head.mark.as_deref()).or_else(|| wrong_size(expected, head.size))
    {
        return Ok(Some(finding));
    }
    let finding = match head.sha256 {
        Some(found) if found != declared => Finding::HashMismatch { declared, found },
        None if capabilities.head_checksum => read(store, bucket, key, expected).await?,
        _ => {
            let leading = leading.transpose()?;
            let typed = agreed_type(expected, head.content_type, leading.as_deref());
            verdict(typed, head.size, declared, head.etag)
        }
    };
    Ok(Some(plain(finding, expected, head.content_encoding, head.cache_control)))
}

/// Nobody signs a content encoding, and stores keep one all the same: whoever downloads the file would undo an encoding
/// that was never done. Nor does anybody sign what a file that is not public tells caches, so it must not ask them to show
/// it to strangers. The copy of a staged upload leaves both behind.
fn plain(
    finding: Finding,
    expected: &Expected,
    encoding: Option<String>,
    cache_control: Option<String>,
) -> Finding {
    let encoding = encoding.filter(|encoding| !encoding.is_empty());
    let shared = cache_control.filter(|said| expected.cache_control.is_none() && is_shared(said));
    let found = match (encoding, shared) {
        (Some(encoding), _) => format!("encoded as {encoding}"),
        (None, Some(shared)) => format!("to be cached as {shared}"),
        (None, None) => return finding,
    };
    match finding {
        Finding::Verified { content_type, .. } => {
            let declared = expected.content_type.as_str().to_owned();
            Finding::ContentTypeMismatch { declared, found: format!("{content_type}, {found}") }
        }
        finding => finding,
    }
}

/// Whether a `Cache-Control` lets a cache show to many what it got for one. What browsers add of their own, such as
/// `no-cache`, does not; nor does what some stores say of every object.
fn is_shared(cache_control: &str) -> bool {
    cache_control.split(',').any(|directive| {
        let name = directive.split('=').next().unwrap_or(directive).trim();
        ["public", "s-maxage", "immutable"].iter().any(|shared| name.eq_ignore_ascii_case(shared))
    })
}

/// What an object holds, by reading it.
pub(crate) async fn read(
    store: &impl Store,
    bucket: &str,
    key: &str,
    expected: &Expected,
) -> Result<Finding, StoreError> {
    Ok(match store.hash_object(bucket, key, expected.size).await? {
        HashOutcome::Complete(read) => judge(expected, read),
        HashOutcome::OverCap { size } => Finding::SizeMismatch { declared: expected.size, found: size },
    })
}

/// Nothing at the key: not yet uploaded, or is the bucket itself gone?
pub(crate) async fn absent(store: &impl Store, bucket: &str) -> Result<Finding, StoreError> {
    match store.head_bucket(bucket).await {
        Ok(false) => Err(StoreError::local(
            ErrorKind::NoSuchBucket,
            "HeadBucket",
            format!("the bucket {bucket} does not exist"),
        )),
        // Credentials that may not ask about the bucket can still be told that the object is absent.
        _ => Ok(Finding::Absent),
    }
}

/// An object that did not come through the upload's URL: it may be one that the uploader must not see, so nothing is
/// told of it.
fn foreign(expected: &Expected, mark: Option<&str>) -> Option<Finding> {
    let wanted = expected.mark.as_deref()?;
    (mark != Some(wanted)).then(|| Finding::ContentTypeMismatch {
        declared: expected.content_type.as_str().to_owned(),
        found: "a copy of another object".to_owned(),
    })
}

/// Mark, size, hash and type of bytes that were read.
fn judge(expected: &Expected, read: ObjectHash) -> Finding {
    if let Some(finding) = foreign(expected, read.mark.as_deref()) {
        return finding;
    }
    if let Some(finding) = wrong_size(expected, read.size) {
        return finding;
    }
    if let Some(declared) = expected.sha256.filter(|declared| *declared != read.sha256) {
        return Finding::HashMismatch { declared, found: read.sha256 };
    }
    let leading = expected.check_bytes.then_some(read.head.as_slice());
    let finding =
        verdict(agreed_type(expected, read.content_type, leading), read.size, read.sha256, read.etag);
    plain(finding, expected, read.content_encoding, read.cache_control)
}

/// The type decides about an object whose size and hash are as promised.
fn verdict(typed: Typed, size: u64, sha256: Digest, etag: Option<String>) -> Finding {
    match typed {
        Ok(content_type) => Finding::Verified { size, sha256, etag, content_type },
        Err(mismatch) => mismatch,
    }
}

pub(crate) fn wrong_size(expected: &Expected, found: u64) -> Option<Finding> {
    match found {
        0 => Some(Finding::Empty),
        _ if found != expected.size && !(expected.at_most && found < expected.size) => {
            Some(Finding::SizeMismatch { declared: expected.size, found })
        }
        _ => None,
    }
}

/// The stored type, or the mismatch.
type Typed = Result<String, Finding>;

/// The stored type and the leading bytes against the declared type; silence agrees.
fn agreed_type(expected: &Expected, stored: Option<String>, leading: Option<&[u8]>) -> Typed {
    let declared = &expected.content_type;
    let mismatch =
        |found: String| Finding::ContentTypeMismatch { declared: declared.as_str().to_owned(), found };
    let stored = stored.unwrap_or_else(|| declared.as_str().to_owned());
    if !ContentType::parse(&stored).is_ok_and(|stored| stored.essence() == declared.essence()) {
        return Err(mismatch(stored));
    }
    match leading.and_then(agreement::sniff) {
        Some(found) if !agreement::agrees(declared, found) => Err(mismatch(found.to_owned())),
        _ => Ok(stored),
    }
}
