//! What time the store thinks it is; signatures depend on it.

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::error::{ErrorKind, StoreError};
use crate::http::Plainly;
use crate::s3::S3Store;

const OPERATION: &str = "GetTime";

impl S3Store {
    /// Seconds since 1970 by the store's clock, from the `Date` of an answer to an anonymous request; `None` if it sends
    /// none. Any answer will do, so this also tells whether the store can be reached at all.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn server_time(&self) -> Result<Option<i64>, StoreError> {
        let sender = Plainly::new(self.endpoint(), self.connect_timeout(), self.request_timeout());
        let mut request = HttpRequest::empty();
        request
            .set_uri(self.endpoint())
            .map_err(|_| StoreError::local(ErrorKind::Invalid, OPERATION, "the endpoint cannot be parsed"))?;
        let date = sender.date(OPERATION, request).await?;
        Ok(date
            .and_then(|date| DateTime::from_str(&date, DateTimeFormat::HttpDate).ok())
            .map(|date| date.secs()))
    }
}
