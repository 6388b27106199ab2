//! Sending one operation: counting its attempts and naming its failure.

use aws_sdk_s3::config::http::HttpRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

/// Sends the fluent request `$request` as operation `$name`. What the SDK fails with, `$understand` may make an answer of.
///
/// A macro, because the SDK's type for "any operation that can be sent" is private.
macro_rules! call {
    ($name:literal, $request:expr) => {
        $crate::s3::call::call!($name, $request.customize(), customized)
    };
    ($name:literal, $request:expr, customized) => {
        $crate::s3::call::call!($name, $request, customized, or | _ | None)
    };
    ($name:literal, $request:expr, customized, or $understand:expr) => {{
        let sent = ::std::sync::Arc::new(::std::sync::atomic::AtomicU32::new(0));
        let count = ::std::sync::Arc::clone(&sent);
        let request = $request.mutate_request(move |_| {
            count.fetch_add(1, ::std::sync::atomic::Ordering::Relaxed);
        });
        // Boxed: the SDK's futures are kilobytes, and some callers hold many.
        let outcome = ::std::boxed::Box::pin(request.send()).await;
        outcome.or_else(|error| {
            ($understand)(&error).ok_or_else(|| {
                let attempts = sent.load(::std::sync::atomic::Ordering::Relaxed);
                $crate::error::StoreError::from_sdk($name, &error, attempts)
            })
        })
    }};
}
pub(super) use call;

/// Adds the Content-MD5 of a body that is in memory.
///
/// S3 requires a digest on the calls that delete or configure. The SDK sends a CRC-32, which stores older than
/// that choice do not count; they want this header, and the newer ones check both.
pub(super) fn add_content_md5(request: &mut HttpRequest) {
    if let Some(body) = request.body().bytes() {
        let digest = STANDARD.encode(Md5::digest(body));
        request.headers_mut().insert("content-md5", digest);
    }
}
