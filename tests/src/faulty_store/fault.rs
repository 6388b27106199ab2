//! The faults of a store, and how one request shows them.

use super::exchange::{Exchange, Reply};
use crate::http::header;
use socket2::SockRef;
use std::io::{Result, Write};
use std::thread::sleep;
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Answered 403 AccessDenied, without a question to the store.
    Denied,
    /// Answered 500 InternalError, likewise.
    InternalError,
    /// Answered 503 SlowDown, likewise.
    SlowDown,
    /// Answered 200 with an error in the body, as S3 does for copies, completed multipart uploads and batches of
    /// deletions; other requests pass.
    ErrorInSuccess,
    /// Passed on after this long, also when its caller has given up by then.
    Slow(Duration),
    /// Never answered: the request waits until its caller gives up, and the store hears nothing of it.
    Silent,
    /// The connection is reset before the store hears of the request.
    Reset,
    /// Carried out, and the answer breaks off half-way.
    Truncated,
    /// Carried out, and the answer is lost: the caller waits until it gives up.
    ReplyLost,
    /// Carried out a second time, this long after the first; the caller has the first answer.
    Duplicate(Duration),
    /// Carried out, and the answer comes in forty pieces with this pause between them.
    Drip(Duration),
}

impl Fault {
    /// Its name, whatever its parameters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "403 AccessDenied",
            Self::InternalError => "500 InternalError",
            Self::SlowDown => "503 SlowDown",
            Self::ErrorInSuccess => "200 with an error",
            Self::Slow(_) => "late execution",
            Self::Silent => "no answer",
            Self::Reset => "connection reset",
            Self::Truncated => "truncated answer",
            Self::ReplyLost => "executed, answer lost",
            Self::Duplicate(_) => "delivered twice",
            Self::Drip(_) => "drip",
        }
    }

    /// Whether a request with this head can have it.
    pub(super) fn befalls(self, head: &str) -> bool {
        self != Self::ErrorInSuccess || error_in_success(head, b"").is_some()
    }
}

/// Serves one request under a fault.
pub(super) fn serve(fault: Option<Fault>, mut exchange: Exchange) -> Result<()> {
    match fault {
        None => exchange.pass(),
        Some(Fault::Denied) => exchange.answer(&refusal("403 Forbidden", "AccessDenied")),
        Some(Fault::InternalError) => exchange.answer(&refusal("500 Internal Server Error", "InternalError")),
        Some(Fault::SlowDown) => exchange.answer(&refusal("503 Service Unavailable", "SlowDown")),
        Some(Fault::ErrorInSuccess) => match error_in_success(exchange.head(), exchange.body()) {
            Some(document) => exchange.answer(&Reply::document("200 OK", &document)),
            None => exchange.pass(),
        },
        Some(Fault::Slow(time)) => {
            sleep(time);
            exchange.pass()
        }
        Some(Fault::Silent) => exchange.wait_for_end(),
        Some(Fault::Reset) => SockRef::from(&*exchange.caller()).set_linger(Some(Duration::ZERO)),
        Some(Fault::Truncated) => {
            let reply = exchange.ask()?;
            exchange.caller().write_all(reply.first_half())
        }
        Some(Fault::ReplyLost) => {
            exchange.ask()?;
            exchange.wait_for_end()
        }
        Some(Fault::Duplicate(after)) => {
            let reply = exchange.ask()?;
            exchange.answer(&reply)?;
            exchange.hang_up()?;
            sleep(after);
            exchange.ask().map(drop)
        }
        Some(Fault::Drip(pause)) => {
            let reply = exchange.ask()?;
            for piece in reply.pieces(40) {
                exchange.caller().write_all(piece)?;
                sleep(pause);
            }
            Ok(())
        }
    }
}

fn refusal(status: &str, code: &str) -> Reply {
    Reply::document(
        status,
        &format!("<Error><Code>{code}</Code><Message>injected by a test</Message></Error>"),
    )
}

/// The document that S3 sends after its 200, for the requests that can end so.
fn error_in_success(head: &str, body: &[u8]) -> Option<String> {
    let line = head.lines().next().unwrap_or_default();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let asks = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    const ERROR: &str = "<Code>InternalError</Code><Message>injected by a test</Message>";
    if line.starts_with("POST ") && asks("delete") {
        let body = String::from_utf8_lossy(body);
        let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let errors: String = keys.map(|key| format!("<Error><Key>{key}</Key>{ERROR}</Error>")).collect();
        return Some(format!("<DeleteResult>{errors}</DeleteResult>"));
    }
    let copies = line.starts_with("PUT ") && header(head, "x-amz-copy-source").is_some();
    let completes = line.starts_with("POST ") && asks("uploadId");
    (copies || completes).then(|| format!("<Error>{ERROR}</Error>"))
}
