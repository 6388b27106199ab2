//! Receives a body: to disk in bounded pieces, hashed on the way, compared with everything declared about it.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};

use crate::blobs::Staged;
use crate::checksum::{self, Algorithm, Checksum, Running, check_form};
use crate::failure::{Failure, Outcome, custom};
use crate::store::Store;

/// Bytes gathered before they are hashed and written: large enough to make the hand-over to a blocking thread cheap.
const PIECE: usize = 512 * 1024;

/// The largest body of one request: 5 GiB, the limit of `PutObject` and `UploadPart`.
pub const MAX_BODY: u64 = 5 * 1024 * 1024 * 1024;

/// How long a body may be.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// As `Content-Length` says.
    Exactly(u64),
    /// As the `content-length-range` of a form says, both ends included.
    Between(u64, u64),
}

impl Length {
    /// Refuses a body that has become too long.
    fn check_growing(self, size: u64) -> S3Result<()> {
        match self {
            Self::Exactly(length) if size > length => Err(incomplete()),
            Self::Between(_, most) if size > most => {
                Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a body that ended too early.
    fn check_complete(self, size: u64) -> S3Result<()> {
        match self {
            Self::Exactly(length) if size < length => Err(incomplete()),
            Self::Between(least, _) if size < least => Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            )),
            _ => Ok(()),
        }
    }
}

/// What the request declares about its body.
pub struct Declared {
    length: Length,
    md5: Option<Vec<u8>>,
    algorithm: Algorithm,
    value: Option<String>,
    trailer: Option<TrailingHeaders>,
    also: Option<Algorithm>,
}

impl Declared {
    /// The algorithm of the checksum that is computed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Nothing declared but the length; a checksum to compute.
    pub fn computed(algorithm: Algorithm, length: u64) -> Self {
        Self { length: Length::Exactly(length), md5: None, algorithm, value: None, trailer: None, also: None }
    }

    /// Reads the declarations of `PutObject` and `UploadPart`.
    ///
    /// `fallback` is computed when the client declares no checksum.
    pub fn parse(
        length: Option<i64>,
        md5: Option<&str>,
        values: [Option<String>; 5],
        headers: &HeaderMap,
        trailer: Option<TrailingHeaders>,
        fallback: Algorithm,
    ) -> S3Result<Self> {
        let length = length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| {
            s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header.")
        })?;
        if length > MAX_BODY {
            return Err(s3_error!(
                EntityTooLarge,
                "Your proposed upload exceeds the maximum allowed object size."
            ));
        }
        let md5 = declared_md5(md5)?;
        let declared = checksum::declared(values)?;
        let announced = match headers.get("x-amz-trailer") {
            Some(name) => Some(trailing_algorithm(name.to_str().unwrap_or_default())?),
            None => None,
        };
        let named = named_algorithm(headers)?;
        let (algorithm, value, trailer) = match (declared, announced) {
            (Some(_), Some(_)) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Expecting a single x-amz-checksum- header or trailer."
                ));
            }
            (Some((algorithm, value)), None) => (algorithm, Some(value), None),
            (None, Some(algorithm)) => (algorithm, None, Some(trailer.ok_or_else(missing_trailer)?)),
            (None, None) => (named.unwrap_or(fallback), None, None),
        };
        if named.is_some_and(|named| named != algorithm) {
            return Err(s3_error!(
                InvalidRequest,
                "Value for x-amz-sdk-checksum-algorithm header is invalid."
            ));
        }
        Ok(Self { length: Length::Exactly(length), md5, algorithm, value, trailer, also: None })
    }

    /// Reads the declarations among a form's fields; the file is to have `least` to `most` bytes.
    pub fn of_form(fields: &HeaderMap, least: u64, most: u64) -> S3Result<Self> {
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let declared = checksum::declared(Algorithm::ALL.map(|algorithm| text(algorithm.header())))?;
        let (algorithm, value) = match declared {
            Some((algorithm, value)) => (algorithm, Some(value)),
            None => (named_algorithm(fields)?.unwrap_or(Algorithm::Crc64nvme), None),
        };
        let md5 = declared_md5(text("content-md5").as_deref())?;
        Ok(Self {
            length: Length::Between(least, most.min(MAX_BODY)),
            md5,
            algorithm,
            value,
            trailer: None,
            also: None,
        })
    }

    /// Asks for a second checksum if the declared one is of another algorithm.
    pub fn and(mut self, algorithm: Algorithm) -> Self {
        self.also = (algorithm != self.algorithm).then_some(algorithm);
        self
    }
}

fn declared_md5(value: Option<&str>) -> S3Result<Option<Vec<u8>>> {
    let Some(value) = value else { return Ok(None) };
    match checksum::decode(value).filter(|bytes| bytes.len() == 16) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid.")),
    }
}

/// The algorithm a client names beside the value: the SDKs' header, or the older one.
fn named_algorithm(headers: &HeaderMap) -> S3Result<Option<Algorithm>> {
    for name in ["x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"] {
        if let Some(value) = headers.get(name) {
            return Algorithm::parse(value.to_str().unwrap_or_default()).map(Some);
        }
    }
    Ok(None)
}

fn trailing_algorithm(header: &str) -> S3Result<Algorithm> {
    Algorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm.header().eq_ignore_ascii_case(header.trim()))
        .ok_or_else(|| {
            s3_error!(InvalidRequest, "The value specified in the x-amz-trailer header is not supported")
        })
}

fn missing_trailer() -> S3Error {
    custom(
        "MalformedTrailerError",
        StatusCode::BAD_REQUEST,
        "The request contained trailing data that was not well-formed.",
    )
}

/// A body that arrived and is what it was declared to be; on disk, but not yet an object.
pub struct Received {
    /// The bytes; `None` when there are none.
    pub staged: Option<(Staged, u64)>,
    /// Its length.
    pub size: u64,
    /// MD5, lower-case hex: S3's entity tag.
    pub md5: String,
    /// The checksum it was sent with, or the one that is computed when it came without.
    pub checksum: Checksum,
    /// The second checksum, if one was asked for.
    pub also: Option<Checksum>,
}

struct Sink {
    staged: Option<Staged>,
    size: u64,
    md5: Md5,
    sum: Running,
    also: Option<Running>,
}

impl Sink {
    fn take(&mut self, store: &Store, pieces: &[Bytes]) -> Outcome<()> {
        for piece in pieces {
            self.md5.update(piece);
            self.sum.update(piece);
            if let Some(also) = &mut self.also {
                also.update(piece);
            }
            let staged = match &mut self.staged {
                Some(staged) => staged,
                none => none.insert(store.blobs.stage()?),
            };
            staged.write(piece)?;
            self.size += piece.len() as u64;
        }
        Ok(())
    }
}

/// Receives a body.
///
/// # Errors
/// `BadDigest` for a wrong checksum, `IncompleteBody` for a wrong length; in either case nothing stays on disk.
pub async fn receive(store: &Arc<Store>, mut body: StreamingBlob, declared: Declared) -> Outcome<Received> {
    let mut sink = Sink {
        staged: None,
        size: 0,
        md5: Md5::new(),
        sum: Running::new(declared.algorithm),
        also: declared.also.map(Running::new),
    };
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut gathered = 0;
    loop {
        let piece = body.next().await.transpose().map_err(|error| interrupted(&*error))?;
        let done = piece.is_none();
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            gathered += piece.len();
            pieces.push(piece);
        }
        if gathered >= PIECE || done {
            gathered = 0;
            let batch = std::mem::take(&mut pieces);
            sink = store
                .run(move |store| {
                    sink.take(store, &batch)?;
                    Ok(sink)
                })
                .await?;
        }
        declared.length.check_growing(sink.size)?;
        if done {
            break;
        }
    }
    verify(sink, declared).map_err(Failure::Refused)
}

fn verify(sink: Sink, declared: Declared) -> S3Result<Received> {
    declared.length.check_complete(sink.size)?;
    let md5 = sink.md5.finalize();
    if declared.md5.is_some_and(|expected| expected.as_slice() != md5.as_ref()) {
        return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    let expected = match declared.trailer {
        Some(trailer) => {
            let headers = trailer.take().ok_or_else(missing_trailer)?;
            let value = headers.get(declared.algorithm.header()).and_then(|value| value.to_str().ok());
            let value = value.ok_or_else(missing_trailer)?.trim().to_owned();
            check_form(declared.algorithm, &value)?;
            Some(value)
        }
        None => declared.value,
    };
    let checksum = sink.sum.finish();
    if expected.is_some_and(|expected| expected != checksum.value) {
        return Err(s3_error!(
            BadDigest,
            "The {} you specified did not match the calculated checksum.",
            checksum.algorithm.name()
        ));
    }
    Ok(Received {
        staged: sink.staged.map(|staged| (staged, sink.size)),
        size: sink.size,
        md5: base16ct::lower::encode_string(md5.as_ref()),
        checksum,
        also: sink.also.map(Running::finish),
    })
}

fn incomplete() -> S3Error {
    s3_error!(
        IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header."
    )
}

/// The body ended early. Why is known to s3s alone, whose error types are private: their names tell.
fn interrupted(error: &(dyn std::error::Error + Send + Sync + 'static)) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        custom(
            "XAmzContentSHA256Mismatch",
            StatusCode::BAD_REQUEST,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match.")
    } else if error.is::<crate::front::idle::Stalled>() || text.contains("no bytes arrived") {
        s3_error!(
            RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period."
        )
    } else {
        incomplete()
    }
}
