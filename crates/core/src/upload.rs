//! The life cycle of an upload: the legal moves and nothing else, and the headers its client must send.

use crate::content_type::ContentType;
use crate::digest::Digest;
use uuid::Uuid;

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// A URL was given out; the bytes are not confirmed.
    Requested,
    /// The store was seen to hold exactly the declared bytes, and the file exists.
    Uploaded,
    /// The store holds other bytes than declared.
    Rejected,
    /// The URL's time ran out before the bytes were confirmed.
    Expired,
    /// The caller gave up.
    Aborted,
}

impl Status {
    /// Every status, in the order of the SQL type.
    pub const ALL: &[Status] =
        &[Status::Requested, Status::Uploaded, Status::Rejected, Status::Expired, Status::Aborted];

    /// The label of the SQL type `upload_status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Uploaded => "uploaded",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Aborted => "aborted",
        }
    }

    /// Reads a label of the SQL type.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.as_str() == text)
    }

    /// Whether an upload may go from `self` to `to`. Only a requested upload moves, and it moves once.
    pub const fn can_move(self, to: Status) -> bool {
        matches!(self, Self::Requested) && to.is_final()
    }

    /// Whether the upload has ended.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Requested)
    }
}

/// Why an upload is rejected, or why it still waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing has arrived yet. The only reason of an upload that may still succeed.
    NotUploaded,
    /// The object has no bytes.
    EmptyFile,
    /// The object's size is not the declared one.
    SizeMismatch,
    /// The object's SHA-256 is not the declared one.
    HashMismatch,
    /// Declared type, stored type and leading bytes contradict one another.
    ContentTypeMismatch,
    /// The URL's time ran out.
    Expired,
    /// The caller gave up.
    Aborted,
}

impl Reason {
    /// Every reason.
    pub const ALL: &[Reason] = &[
        Reason::NotUploaded,
        Reason::EmptyFile,
        Reason::SizeMismatch,
        Reason::HashMismatch,
        Reason::ContentTypeMismatch,
        Reason::Expired,
        Reason::Aborted,
    ];

    /// The stable text in `upload_requests.reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotUploaded => "NOT_UPLOADED",
            Self::EmptyFile => "EMPTY_FILE",
            Self::SizeMismatch => "SIZE_MISMATCH",
            Self::HashMismatch => "HASH_MISMATCH",
            Self::ContentTypeMismatch => "CONTENT_TYPE_MISMATCH",
            Self::Expired => "EXPIRED",
            Self::Aborted => "ABORTED",
        }
    }

    /// The status that an upload has for this reason.
    pub const fn status(self) -> Status {
        match self {
            Self::NotUploaded => Status::Requested,
            Self::EmptyFile | Self::SizeMismatch | Self::HashMismatch | Self::ContentTypeMismatch => {
                Status::Rejected
            }
            Self::Expired => Status::Expired,
            Self::Aborted => Status::Aborted,
        }
    }
}

/// The headers the client must send exactly, sorted by name, besides `host`. They are signed, so the store refuses any
/// other length, type or bytes.
///
/// With a digest, `x-amz-sdk-checksum-algorithm` goes along: Ceph enforces the checksum only when it is present. With
/// `create_only` the store refuses a key that exists (`if-none-match: *`). With a `mark`, the upload's id, the object
/// carries it as metadata; should an unsigned `x-amz-copy-source` turn the upload into a copy of another object, the
/// signed directive has the copy keep that one's metadata, and so not carry it. `cache_control` is
/// [`Access::cache_control`](crate::policy::Access::cache_control).
///
/// No value can contain CR or LF: three are numbers, Base64 or an id, four are constants, and a [`ContentType`] has no
/// control characters.
pub fn signed_headers(
    content_type: &ContentType,
    size: u64,
    digest: Option<&Digest>,
    create_only: bool,
    mark: Option<&Uuid>,
    cache_control: Option<&'static str>,
) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if let Some(cache_control) = cache_control {
        headers.push(("cache-control", cache_control.to_owned()));
    }
    headers.push(("content-length", size.to_string()));
    headers.push(("content-type", content_type.as_str().to_owned()));
    if create_only {
        headers.push(("if-none-match", "*".to_owned()));
    }
    if let Some(digest) = digest {
        headers.push(("x-amz-checksum-sha256", digest.to_base64()));
    }
    if let Some(mark) = mark {
        headers.push(("x-amz-meta-upload", mark.to_string()));
        headers.push(("x-amz-metadata-directive", "COPY".to_owned()));
    }
    if digest.is_some() {
        headers.push(("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()));
    }
    headers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::policy::Access;
    use proptest::prelude::*;

    #[test]
    fn only_a_requested_upload_moves_and_only_once() {
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(
                    from.can_move(*to),
                    *from == Status::Requested && *to != Status::Requested,
                    "{from:?} to {to:?}"
                );
            }
        }
    }

    #[test]
    fn labels_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(*status));
        }
        assert_eq!(Status::parse("Requested"), None);
        assert_eq!(Status::parse(""), None);
    }

    #[test]
    fn only_a_missing_object_leaves_the_upload_waiting() {
        for reason in Reason::ALL {
            assert_eq!(reason.status().is_final(), *reason != Reason::NotUploaded);
        }
    }

    #[test]
    fn headers_bind_the_content() {
        let png = ContentType::parse("image/png").unwrap();
        let digest = Digest::of(b"");
        assert_eq!(
            signed_headers(&png, 3_221_225_472, Some(&digest), true, None, None),
            [
                ("content-length", "3221225472".to_owned()),
                ("content-type", "image/png".to_owned()),
                ("if-none-match", "*".to_owned()),
                ("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned()),
                ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
            ]
        );
        let names = |mark| -> Vec<_> {
            signed_headers(&png, 1, None, false, mark, None).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(None), ["content-length", "content-type"]);
        assert_eq!(
            names(Some(&Uuid::nil())),
            ["content-length", "content-type", "x-amz-meta-upload", "x-amz-metadata-directive"]
        );
        let cached = signed_headers(&png, 1, None, false, None, Access::Public.cache_control());
        assert_eq!(
            cached.first().unwrap(),
            &("cache-control", "public, max-age=31536000, immutable".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_header_value_breaks_a_line(text: String, size: u64, bytes: [u8; 32], create_only: bool, mark: u128) {
            let given = ContentType::parse(&text).unwrap_or_else(|_| ContentType::parse("text/plain; charset=\"u t f\"").unwrap());
            let headers = signed_headers(&given, size, Some(&Digest::from_bytes(bytes)), create_only, Some(&Uuid::from_u128(mark)), Access::Public.cache_control());
            prop_assert!(headers.is_sorted());
            for (_, value) in headers {
                prop_assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
        }
    }
}
