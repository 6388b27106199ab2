//! The headers kept with an object, and the ones this store refuses rather than forgets.

use http::HeaderMap;
use s3s::dto::{Metadata, Timestamp};
use s3s::{S3Result, s3_error};

use crate::index::records::Headers;

/// What S3 calls an object that came without a type.
pub const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// User metadata of one object, names and values together: S3's limit in bytes.
const MAX_USER_METADATA: usize = 2048;

/// Headers that ask for something this store does not do. Accepting them would promise encryption,
/// locks or tags that are not there.
const UNSUPPORTED: [&str; 8] = [
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];

/// Refuses a write that asks for more than this store does.
pub fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    if let Some(name) = UNSUPPORTED.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented: {name}"
        ));
    }
    if let Some(class) = headers.get("x-amz-storage-class")
        && class != "STANDARD"
    {
        return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"));
    }
    refuse_acls(headers)
}

/// Refuses access control lists other than the owner's: access is the bucket policy's business.
pub fn refuse_acls(headers: &HeaderMap) -> S3Result<()> {
    let owners = ["private", "bucket-owner-full-control"];
    let canned = headers.get("x-amz-acl").is_some_and(|acl| !owners.iter().any(|name| acl == name));
    if canned || headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-")) {
        return Err(s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs"));
    }
    Ok(())
}

/// User metadata as it is stored.
pub fn user(metadata: Option<Metadata>) -> S3Result<std::collections::BTreeMap<String, String>> {
    let metadata = metadata.unwrap_or_default();
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_USER_METADATA {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    Ok(metadata.into_iter().collect())
}

/// `Content-Encoding` without `aws-chunked`, which belongs to the transport.
pub fn encoding(value: Option<String>) -> Option<String> {
    let codings = value?;
    let kept: Vec<&str> = codings
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Takes the kept headers out of a request type.
macro_rules! take_headers {
    ($input:expr) => {
        $crate::index::records::Headers {
            content_type: $input.content_type.take(),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $crate::s3::headers::encoding($input.content_encoding.take()),
            content_language: $input.content_language.take(),
            expires: $input.expires.take(),
            user: $crate::s3::headers::user($input.metadata.take())?,
        }
    };
}
pub(super) use take_headers;

/// Puts the kept headers into a response type.
macro_rules! show_headers {
    ($output:expr, $headers:expr) => {{
        let headers = $headers;
        $output.content_type = Some($crate::s3::headers::content_type(&headers));
        $output.cache_control = headers.cache_control;
        $output.content_disposition = headers.content_disposition;
        $output.content_encoding = headers.content_encoding;
        $output.content_language = headers.content_language;
        $output.expires = headers.expires;
        if !headers.user.is_empty() {
            $output.metadata = Some(headers.user.into_iter().collect());
        }
    }};
}
pub(super) use show_headers;

/// The type an object is served with.
pub fn content_type(headers: &Headers) -> String {
    headers.content_type.clone().unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())
}

/// Whether `since` is not before the time of the last change, both in whole seconds as HTTP has them.
pub fn unchanged_since(modified: &Timestamp, since: &Timestamp) -> bool {
    modified <= since
}
