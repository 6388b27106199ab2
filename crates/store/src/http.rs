//! The one HTTP client: plain or rustls with ring, no redirects, no proxy from the environment.

use std::time::Duration;

use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::Headers;

use crate::error::{ErrorKind, StoreError};

/// How long an unused connection is kept: less than servers and proxies commonly keep one, so that a request rarely
/// meets one that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// The most of an error document that is read; S3's are a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A client for plain HTTP endpoints; it never loads certificates.
pub(crate) fn plain_client() -> SharedHttpClient {
    Builder::new().pool_idle_timeout(POOL_IDLE).build_http()
}

/// A client for HTTPS (and HTTP) endpoints, trusting the system's certificates.
pub(crate) fn tls_client() -> SharedHttpClient {
    Builder::new().pool_idle_timeout(POOL_IDLE).tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// What came back from a request that was granted.
pub(crate) struct Answer {
    headers: Headers,
    /// What its body begins with.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

/// Sends requests as a client of presigned URLs does: without the SDK, without retries, each on its own
/// connection, so that what one writer sees never depends on another.
pub(crate) struct Plainly {
    connector: Connector,
    limit: Duration,
}

impl Plainly {
    /// A sender for URLs that begin like `url`; each request may take `limit`, connecting `connect_timeout`.
    pub(crate) fn new(url: &str, connect_timeout: Duration, limit: Duration) -> Self {
        let settings = HttpConnectorSettings::builder().connect_timeout(connect_timeout).build();
        let builder = Connector::builder().connector_settings(settings).pool_max_idle_per_host(0);
        let connector = if url.starts_with("https:") {
            builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
        } else {
            builder.build_http()
        };
        Self { connector, limit }
    }

    /// PUTs `body` to `url` with exactly `headers`.
    pub(crate) async fn put(
        &self,
        operation: &'static str,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.send("PUT", operation, url, headers, body).await
    }

    /// Sends `body` to `url` with exactly `headers`.
    pub(crate) async fn send(
        &self,
        method: &str,
        operation: &'static str,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.ask(operation, method, url, headers, body).await.map(drop)
    }

    /// The same, with the answer; of its body no more than an error document may have is read.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, StoreError> {
        let invalid = |what: &str| StoreError::local(ErrorKind::Invalid, operation, what);
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(method).map_err(|_| invalid("not a method"))?;
        request.set_uri(url).map_err(|_| invalid("the signed URL cannot be parsed"))?;
        for (name, value) in headers {
            request
                .headers_mut()
                .try_insert((*name).to_owned(), value.clone())
                .map_err(|_| invalid("a signed header cannot be sent"))?;
        }
        self.exchange(operation, request, async |response| {
            let status = response.status();
            let headers = response.headers().clone();
            let document = beginning(response.into_body()).await;
            if status.is_success() {
                return Ok(Answer { headers, body: document });
            }
            let document = String::from_utf8_lossy(&document);
            let (code, message) = (element(&document, "Code"), element(&document, "Message"));
            Err(StoreError::from_answer(operation, status.as_u16(), code, message, &headers))
        })
        .await
    }

    /// The `Date` header of whatever answers `request`.
    pub(crate) async fn date(
        &self,
        operation: &'static str,
        request: HttpRequest,
    ) -> Result<Option<String>, StoreError> {
        let date = async |response: HttpResponse| Ok(response.headers().get("date").map(str::to_owned));
        self.exchange(operation, request, date).await
    }

    /// Sends `request` and has the answer read, all within the limit.
    async fn exchange<T>(
        &self,
        operation: &'static str,
        request: HttpRequest,
        read: impl AsyncFnOnce(HttpResponse) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let exchange = async {
            let response = self.connector.call(request).await;
            read(response.map_err(|error| StoreError::from_connector(operation, &error))?).await
        };
        tokio::time::timeout(self.limit, exchange).await.unwrap_or_else(|_| {
            Err(StoreError::local(ErrorKind::Timeout, operation, "no answer within the request's time limit"))
        })
    }
}

/// What an answer begins with; what cannot be read is left out, because the status has said the essential.
async fn beginning(body: SdkBody) -> Vec<u8> {
    let mut stream = ByteStream::new(body);
    let mut document = Vec::new();
    while let Some(Ok(piece)) = stream.next().await {
        document.extend_from_slice(&piece);
        if document.len() > MAX_ANSWER {
            break;
        }
    }
    document
}

/// The text of the first `<name>` in an S3 error document, whose elements have no attributes.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text)
}
