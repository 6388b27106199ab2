//! Request bodies with manners: a sender that falls silent is given up, so that it holds no file and no connection;
//! a body that nobody wants any more is read on for a while, so that its sender hears the answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body::Body as _;
use hyper::body::Incoming;
use s3s::Body;
use s3s::stream::{ByteStream, DynByteStream, RemainingLength};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

/// How long a sender or a receiver may make no progress at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The sender stalled.
#[derive(Debug, thiserror::Error)]
#[error("no bytes arrived for {} seconds", PATIENCE.as_secs())]
pub struct Stalled;

/// How much of an unwanted body is still read, in bytes. Closing at once would reset the connection, and the sender of
/// a refused upload would see that instead of the refusal.
const COURTESY: usize = 64 * 1024 * 1024;

struct Guarded {
    /// `None` once it ended.
    body: Option<Incoming>,
    deadline: Pin<Box<Sleep>>,
}

/// Wraps a request body.
pub fn guard(body: Incoming) -> Body {
    // A body that is known to be empty stays empty: s3s takes a stream for something to read.
    if body.is_end_stream() {
        return Body::empty();
    }
    let stream: DynByteStream =
        Box::pin(Guarded { body: Some(body), deadline: Box::pin(tokio::time::sleep(PATIENCE)) });
    Body::from(stream)
}

impl Stream for Guarded {
    type Item = Result<Bytes, s3s::StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.deadline.as_mut().reset(Instant::now() + PATIENCE);
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(Box::new(error))));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    std::task::ready!(self.deadline.as_mut().poll(context));
                    self.body = None;
                    return Poll::Ready(Some(Err(Stalled.into())));
                }
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let (Some(body), Ok(runtime)) = (self.body.take(), Handle::try_current()) {
            // Ends by itself when the connection does.
            runtime.spawn(tokio::time::timeout(PATIENCE, read_on(body)));
        }
    }
}

async fn read_on(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > COURTESY {
            return;
        }
    }
}

impl ByteStream for Guarded {
    fn remaining_length(&self) -> RemainingLength {
        let Some(body) = &self.body else { return RemainingLength::new_exact(0) };
        match body.size_hint().exact().and_then(|length| usize::try_from(length).ok()) {
            Some(length) => RemainingLength::new_exact(length),
            None => RemainingLength::unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use futures::StreamExt;
    use http::{Request, Response};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A server that answers with the end of the body it was sent: its length, or the error.
    fn serve() -> DuplexStream {
        let (client, server) = duplex(64 * 1024);
        let service = service_fn(|request: Request<Incoming>| async {
            let mut body = guard(request.into_body());
            let mut length = 0;
            let end = loop {
                match body.next().await {
                    Some(Ok(bytes)) => length += bytes.len(),
                    Some(Err(error)) => break error.to_string(),
                    None => break length.to_string(),
                }
            };
            Ok::<_, Infallible>(Response::new(Body::from(end)))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        client
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_is_given_up_and_a_slow_one_is_not() {
        let head = b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n";
        let mut slow = serve();
        slow.write_all(head).await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            slow.write_all(b"x").await.unwrap();
        }
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\n10"), "{answer}");

        let mut silent = serve();
        silent.write_all(head).await.unwrap();
        silent.write_all(b"xyz").await.unwrap();
        let mut answer = String::new();
        silent.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("no bytes arrived for 60 seconds"), "{answer}");
    }
}
