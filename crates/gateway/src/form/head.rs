//! The head of a form, all that comes before its file: read in a bounded amount of memory.
//!
//! The multipart parser keeps what it cannot make sense of yet, and nobody has proved a right to anything until the
//! head was read.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use s3s::{Body, S3Error, S3Result, StdError, s3_error};

use super::malformed;

/// The most of a form that is read before its file was found and its signature checked, in bytes: the fields, and
/// several times as much for what stands around them.
const MAX_HEAD: u64 = 64 * 1024;

/// How much of a form may still be read.
#[derive(Debug)]
pub struct Ration(AtomicU64);

impl Ration {
    /// Enough for a head.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(MAX_HEAD)))
    }

    /// Lifts the limit: the file may be as long as the policy allows.
    pub fn lift(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for the next piece of the head.
    ///
    /// # Errors
    /// `MaxPostPreDataLengthExceededError` when it does not come within the ration.
    pub async fn within<T>(&self, piece: impl Future<Output = multer::Result<T>>) -> S3Result<T> {
        let mut piece = pin!(piece);
        poll_fn(|context| {
            let mut read = piece.as_mut().poll(context);
            if read.is_pending() && self.left() == 0 {
                // Once more: the parser may have read again after it had looked at what there was.
                read = piece.as_mut().poll(context);
                if read.is_pending() {
                    return Poll::Ready(Err(too_large()));
                }
            }
            read.map_err(malformed)
        })
        .await
    }
}

/// What is told to whoever sends a head that is too large.
pub fn too_large() -> S3Error {
    s3_error!(
        MaxPostPreDataLengthExceededError,
        "Your POST request fields preceding the upload file were too large."
    )
}

/// The body of a form, as far as its ration reaches.
///
/// It ends in silence and not in an error: what was read last may hold the whole head and the start of the file.
/// [`Ration::within`] notices when it does not.
pub struct Rationed {
    body: Body,
    ration: Arc<Ration>,
    /// What arrived beyond the ration.
    rest: Bytes,
}

impl Rationed {
    /// Limits a body.
    pub fn new(body: Body, ration: Arc<Ration>) -> Self {
        Self { body, ration, rest: Bytes::new() }
    }
}

impl Stream for Rationed {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let left = self.ration.left();
        if left == 0 {
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(bytes)) => self.rest = bytes,
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = self.rest.split_to(length);
        self.ration.0.store(left - length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(piece)))
    }
}
