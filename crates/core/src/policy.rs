//! What a physical bucket is told when it is provisioned, as values: CORS, public read, lifecycle.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::origin::Origin;

/// Who may read a bucket's objects, and for how long they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read through signed URLs only.
    Private,
    /// Read by anyone who knows the URL.
    Public,
    /// Read through signed URLs only, and gone after a day.
    Temp,
}

impl Access {
    /// Every kind of access, in the order of the SQL type.
    pub const ALL: &[Access] = &[Access::Private, Access::Public, Access::Temp];

    /// The label of the SQL type `bucket_access`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::Temp => "temp",
        }
    }

    /// Reads a label of the SQL type.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|access| access.as_str() == text)
    }

    /// What objects tell caches about themselves. A public URL names its bytes for good, because no key is ever written
    /// twice; of other files the URLs change, and whoever signs one says how long it may be kept.
    pub const fn cache_control(self) -> Option<&'static str> {
        match self {
            Self::Public => Some("public, max-age=31536000, immutable"),
            Self::Private | Self::Temp => None,
        }
    }
}

/// One CORS rule. A bucket has exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CorsRule {
    /// Methods, in upper case.
    pub allowed_methods: Vec<&'static str>,
    /// Request headers, each by name: not every store takes a wildcard.
    pub allowed_headers: Vec<&'static str>,
    /// Origins, as browsers spell them.
    pub allowed_origins: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<&'static str>,
    /// How long a browser may keep the answer to a preflight, in seconds.
    pub max_age_seconds: u32,
}

/// What [`crate::upload::signed_headers`] can contain, and `range` for partial downloads.
const ALLOWED_HEADERS: [&str; 9] = [
    "cache-control",
    "content-type",
    "content-length",
    "if-none-match",
    "range",
    "x-amz-checksum-sha256",
    "x-amz-meta-upload",
    "x-amz-metadata-directive",
    "x-amz-sdk-checksum-algorithm",
];

/// What tells a script what it got or sent, and how to report trouble. It needs none of them: the server lists the parts.
const EXPOSE_HEADERS: [&str; 7] = [
    "etag",
    "content-length",
    "content-range",
    "accept-ranges",
    "content-disposition",
    "x-amz-checksum-sha256",
    "x-amz-request-id",
];

/// The CORS rule of a bucket. `origins` is not empty: who has none must not let everybody in instead.
///
/// A private bucket takes uploads from scripts (PUT, and POST for forms) and shows them the result (HEAD); public and
/// temporary ones let them read as well (GET).
pub fn cors(access: Access, origins: &[Origin]) -> CorsRule {
    let allowed_methods = match access {
        Access::Private => vec!["PUT", "POST", "HEAD"],
        Access::Public | Access::Temp => vec!["PUT", "POST", "GET", "HEAD"],
    };
    CorsRule {
        allowed_methods,
        allowed_headers: ALLOWED_HEADERS.to_vec(),
        allowed_origins: origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
        expose_headers: EXPOSE_HEADERS.to_vec(),
        max_age_seconds: 3600,
    }
}

/// The bucket policy that lets anyone read objects under `key_prefix`, and nothing else; an empty prefix is the whole
/// bucket. Both arguments are plain names ([`crate::physical`]): neither can contain a wildcard of the policy language.
pub fn public_read(bucket: &str, key_prefix: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "PublicRead",
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject"],
            "Resource": [format!("arn:aws:s3:::{bucket}/{key_prefix}*")],
        }],
    })
}

/// What the store removes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lifecycle {
    /// Objects expire this many days after they were written; `None` is never.
    pub expire_days: Option<u32>,
    /// Multipart uploads that were never completed are aborted after this many days. This is S3's
    /// `AbortIncompleteMultipartUpload`, never an expiration of objects.
    pub abort_multipart_days: u32,
}

/// The lifecycle of a bucket: temporary files go after a day; parts everywhere after
/// eight, because a request for an upload in parts may live for seven.
pub fn lifecycle(access: Access) -> Lifecycle {
    let expire_days = match access {
        Access::Temp => Some(1),
        Access::Private | Access::Public => None,
    };
    Lifecycle { expire_days, abort_multipart_days: 8 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::content_type::ContentType;
    use crate::digest::Digest;
    use crate::upload::signed_headers;

    #[test]
    fn labels_read_back() {
        for access in Access::ALL {
            assert_eq!(Access::parse(access.as_str()), Some(*access));
            assert_eq!(serde_json::to_value(access).unwrap(), access.as_str());
        }
        assert_eq!(Access::parse("PUBLIC"), None);
    }

    #[test]
    fn methods_follow_access() {
        assert_eq!(cors(Access::Private, &[]).allowed_methods, ["PUT", "POST", "HEAD"]);
        assert_eq!(cors(Access::Public, &[]).allowed_methods, ["PUT", "POST", "GET", "HEAD"]);
        assert_eq!(cors(Access::Temp, &[]).allowed_methods, ["PUT", "POST", "GET", "HEAD"]);
    }

    #[test]
    fn every_signed_header_passes_preflight_by_name() {
        let rule = cors(Access::Private, &[Origin::parse("*").unwrap()]);
        let png = ContentType::parse("image/png").unwrap();
        let mark = uuid::Uuid::nil();
        let cached = Access::Public.cache_control();
        for (name, _) in signed_headers(&png, 1, Some(&Digest::of(b"")), true, Some(&mark), cached) {
            assert!(rule.allowed_headers.contains(&name), "{name}");
        }
        assert!(rule.allowed_headers.iter().all(|name| !name.contains('*')));
        assert_eq!(rule.allowed_origins, ["*"]);
        assert!(rule.expose_headers.contains(&"etag"));
    }

    #[test]
    fn public_read_is_limited_to_the_prefix() {
        assert_eq!(public_read("b", "")["Statement"][0]["Resource"][0], "arn:aws:s3:::b/*");
        let policy = public_read("b", "a/b/");
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 1);
        assert_eq!(policy["Statement"][0]["Resource"], json!(["arn:aws:s3:::b/a/b/*"]));
        assert_eq!(policy["Statement"][0]["Action"], json!(["s3:GetObject"]));
    }

    #[test]
    fn only_temporary_objects_expire() {
        assert_eq!(lifecycle(Access::Temp), Lifecycle { expire_days: Some(1), abort_multipart_days: 8 });
        assert_eq!(lifecycle(Access::Private), Lifecycle { expire_days: None, abort_multipart_days: 8 });
        assert_eq!(lifecycle(Access::Public), Lifecycle { expire_days: None, abort_multipart_days: 8 });
    }
}
