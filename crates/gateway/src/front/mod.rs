//! The front door: what every request meets before and after s3s.
//!
//! Request ids, the access log, CORS and the rules of Signature Version 4 that s3s leaves to its embedder.

pub mod access;
pub mod gate;
pub mod idle;
pub mod log;

use std::sync::{Arc, OnceLock};

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pg_storage_core::presign::Credentials;
use s3s::auth::SimpleAuth;
use s3s::dto::CORSConfiguration;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3Result, s3_error};
use uuid::Uuid;

use crate::cors::Crossing;
use crate::failure::custom;
use crate::index::buckets;
use crate::s3::Api;
use crate::store::Store;
use crate::{LocalStore, document, form};
use access::Access;
use log::AccessLog;

/// The name of the S3 operation, told by s3s to the access check and from there to the log.
#[derive(Debug, Clone, Default)]
pub struct Operation(Arc<OnceLock<String>>);

impl Operation {
    /// Remembers the name.
    pub fn set(&self, name: &str) {
        // s3s asks once per request; a second name would be a second request's.
        let _ = self.0.set(name.to_owned());
    }
}

/// The front door of one server.
pub struct Front {
    s3: S3Service,
    store: Arc<Store>,
    credentials: Credentials,
    log: Option<AccessLog>,
}

impl Front {
    /// Builds s3s over the store.
    pub fn new(config: &LocalStore, store: Arc<Store>) -> std::io::Result<Self> {
        let credentials = &config.credentials;
        let mut builder = S3ServiceBuilder::new(Api(Arc::clone(&store)));
        builder.set_auth(SimpleAuth::from_single(
            credentials.access_key_id.clone(),
            credentials.secret_access_key.expose().to_owned(),
        ));
        builder.set_access(Access { store: Arc::clone(&store) });
        let log = config.access_log.as_deref().map(AccessLog::open).transpose()?;
        Ok(Self { s3: builder.build(), store, credentials: credentials.clone(), log })
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let origin = request.headers().get(ORIGIN).cloned();
        let operation = Operation::default();

        let mut response = if method == Method::OPTIONS {
            self.preflight(&path, request.headers()).await.unwrap_or_else(refusal)
        } else {
            let mut response = self.operate(request, operation.clone()).await;
            if let Some(origin) = origin {
                self.share(&path, &origin, &method, response.headers_mut()).await;
            }
            response
        };
        if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().simple().to_string()) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        if let Some(log) = &self.log {
            log.write(&method, &path, response.status(), operation.0.get().map(String::as_str));
        }
        response
    }

    async fn operate(&self, request: Request<Incoming>, operation: Operation) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let body = idle::guard(body);
        if parts.method == Method::POST && form::is_form(&parts.headers) {
            operation.set("PostObject");
            let path = parts.uri.path();
            let accepted = form::accept(&self.store, &self.credentials, path, &parts.headers, body).await;
            return accepted.unwrap_or_else(refusal);
        }
        if let Err(error) = gate::check(&mut parts, &self.store.region) {
            return refusal(error);
        }
        parts.extensions.insert(operation);
        let request = Request::from_parts(parts, body);
        match self.s3.call(request).await {
            Ok(response) => response,
            Err(_) => refusal(s3_error!(InternalError)),
        }
    }

    /// The answer to a preflight: 200 with the rule's headers, or 403.
    async fn preflight(&self, path: &str, headers: &HeaderMap) -> S3Result<Response<Body>> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (Some(origin), Some(method)) = (text(ORIGIN), text(ACCESS_CONTROL_REQUEST_METHOD)) else {
            return Err(custom(
                "BadRequest",
                StatusCode::BAD_REQUEST,
                "Insufficient information. Origin and Access-Control-Request-Method headers are needed.",
            ));
        };
        let configuration = self.cors(path).await.ok_or_else(|| {
            custom(
                "AccessForbidden",
                StatusCode::FORBIDDEN,
                "CORSResponse: CORS is not enabled for this bucket.",
            )
        })?;
        let asked = text(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
        let answer = Crossing { origin, method, headers: asked }.answer(&configuration).ok_or_else(|| {
            custom(
                "AccessForbidden",
                StatusCode::FORBIDDEN,
                "CORSResponse: This CORS request is not allowed.",
            )
        })?;
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = answer;
        Ok(response)
    }

    /// Puts the CORS headers on an answer, refusals too: without them a page sees nothing but a network error.
    async fn share(&self, path: &str, origin: &HeaderValue, method: &Method, answer: &mut HeaderMap) {
        let (Ok(origin), Some(configuration)) = (origin.to_str(), self.cors(path).await) else { return };
        let crossing = Crossing { origin, method: method.as_str(), headers: "" };
        answer.extend(crossing.answer(&configuration).unwrap_or_default());
    }

    async fn cors(&self, path: &str) -> Option<CORSConfiguration> {
        let bucket = path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let found = self.store.run(move |store| {
            let bucket = store.index.read(|transaction| buckets::get(transaction, &bucket))?;
            bucket.cors.as_deref().map(document::read).transpose()
        });
        found.await.ok()?
    }
}

/// An S3 error as an HTTP answer.
fn refusal(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
