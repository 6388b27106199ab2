//! A body whose sender falls silent ends with an error, so that no stalled client holds a file or a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body::Body as _;
use hyper::body::Incoming;
use s3s::Body;
use s3s::stream::{ByteStream, DynByteStream, RemainingLength};
use tokio::time::{Instant, Sleep};

/// How long a sender or a receiver may make no progress at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The sender stalled.
#[derive(Debug, thiserror::Error)]
#[error("no bytes arrived for {} seconds", PATIENCE.as_secs())]
pub struct Stalled;

struct Guarded {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
}

/// Wraps a request body.
pub fn guard(body: Incoming) -> Body {
    // A body that is known to be empty stays empty: s3s takes a stream for something to read.
    if body.is_end_stream() {
        return Body::empty();
    }
    let stream: DynByteStream = Box::pin(Guarded { body, deadline: Box::pin(tokio::time::sleep(PATIENCE)) });
    Body::from(stream)
}

impl Stream for Guarded {
    type Item = Result<Bytes, s3s::StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.deadline.as_mut().reset(Instant::now() + PATIENCE);
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Box::new(error)))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    return self.deadline.as_mut().poll(context).map(|()| Some(Err(Stalled.into())));
                }
            }
        }
    }
}

impl ByteStream for Guarded {
    fn remaining_length(&self) -> RemainingLength {
        match self.body.size_hint().exact().and_then(|length| usize::try_from(length).ok()) {
            Some(length) => RemainingLength::new_exact(length),
            None => RemainingLength::unknown(),
        }
    }
}
