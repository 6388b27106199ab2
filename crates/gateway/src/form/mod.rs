//! Uploads by HTML form. Rules from "Browser-Based Uploads Using POST (AWS Signature Version 4)" of the S3 API reference.
//!
//! Not left to s3s, which holds the file in memory and takes a form's date for a clock to be in step with.

mod head;
mod policy;

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use multer::{Field, Multipart};
use pg_storage_core::presign::Credentials;
use s3s::dto::{Metadata, PostResponse, StreamingBlob, Timestamp, TimestampFormat};
use s3s::{Body, S3Error, S3Result, s3_error};

use crate::document;
use crate::index::objects::Condition;
use crate::index::records::{Headers, Object};
use crate::receive::Declared;
use crate::s3::{check_key, encoding, publish, refuse_unsupported, user};
use crate::store::Store;
use head::{Ration, Rationed, too_large};
use policy::Signed;

/// The fields before the file, names and values together: S3's limit in bytes.
const MAX_FIELDS: usize = 20 * 1024;

/// Whether the request is a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    let form = "multipart/form-data";
    headers.get_all(CONTENT_TYPE).iter().any(|value| {
        value
            .as_bytes()
            .trim_ascii()
            .get(..form.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(form.as_bytes()))
    })
}

/// The names and values of a form, up to its file. Names are lower case, as in a policy.
#[derive(Debug, Default)]
struct Fields {
    /// As headers: S3 gives most fields the names and the meaning of headers.
    map: HeaderMap,
    size: usize,
}

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.map.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(HeaderName::as_str)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let value = self.map.remove(name)?;
        String::from_utf8(value.as_bytes().to_vec()).ok()
    }

    async fn read(&mut self, mut field: Field<'_>, ration: &Ration) -> S3Result<()> {
        let name = field.name().unwrap_or_default().to_owned();
        let mut value = Vec::new();
        while let Some(piece) = ration.within(field.chunk()).await? {
            value.extend_from_slice(&piece);
            self.size += piece.len();
            self.check_size()?;
        }
        self.size += name.len();
        self.check_size()?;
        let (name, value) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(s3_error!(
                MalformedPOSTRequest,
                "A form field has a name or a value S3 has no use for."
            ));
        };
        if self.map.insert(name, value).is_some() {
            return Err(s3_error!(InvalidArgument, "A form field must not be given twice."));
        }
        Ok(())
    }

    fn check_size(&self) -> S3Result<()> {
        if self.size <= MAX_FIELDS { Ok(()) } else { Err(too_large()) }
    }

    /// What is kept with the object.
    fn headers(&mut self) -> S3Result<Headers> {
        let names: Vec<String> = self.map.keys().map(|name| name.as_str().to_owned()).collect();
        let mut metadata = Metadata::default();
        for name in names {
            if let Some(own) = name.strip_prefix("x-amz-meta-")
                && let Some(value) = self.take(&name)
            {
                metadata.insert(own.to_owned(), value);
            }
        }
        let expires = self.take("expires");
        Ok(Headers {
            content_type: self.take("content-type"),
            cache_control: self.take("cache-control"),
            content_disposition: self.take("content-disposition"),
            content_encoding: encoding(self.take("content-encoding")),
            content_language: self.take("content-language"),
            expires: expires.and_then(|text| Timestamp::parse(TimestampFormat::HttpDate, &text).ok()),
            user: user(Some(metadata))?,
        })
    }
}

fn malformed(error: multer::Error) -> S3Error {
    s3_error!(
        error,
        MalformedPOSTRequest,
        "The body of your POST request is not well-formed multipart/form-data."
    )
}

/// Stores the file of a form posted to `path`.
pub async fn accept(
    store: &Arc<Store>,
    credentials: &Credentials,
    path: &str,
    headers: &HeaderMap,
    body: Body,
) -> S3Result<Response<Body>> {
    let bucket = path.trim_matches('/').to_owned();
    if !s3s::path::check_bucket_name(&bucket) {
        return Err(s3_error!(MethodNotAllowed, "A form is posted to a bucket."));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(content_type).map_err(malformed)?;
    let ration = Ration::new();
    let mut form = Multipart::new(Rationed::new(body, Arc::clone(&ration)), boundary);

    let mut fields = Fields::default();
    let file = loop {
        let field = ration.within(form.next_field()).await?;
        let field = field.ok_or_else(|| {
            s3_error!(InvalidArgument, "POST requires exactly one file upload per request.")
        })?;
        if field.name() == Some("file") {
            break field;
        }
        fields.read(field, &ration).await?;
    };
    let signed = Signed::check(&fields, &bucket, credentials, &store.region)?;
    ration.lift();
    store_file(store, bucket, fields, signed, file).await
}

async fn store_file(
    store: &Arc<Store>,
    bucket: String,
    mut fields: Fields,
    signed: Signed,
    file: Field<'static>,
) -> S3Result<Response<Body>> {
    for name in ["success_action_redirect", "redirect"] {
        if fields.map.contains_key(name) {
            return Err(s3_error!(NotImplemented, "The local store does not redirect after a form."));
        }
    }
    if let Some(acl) = fields.map.remove("acl") {
        fields.map.insert("x-amz-acl", acl);
    }
    refuse_unsupported(&fields.map)?;
    let key = fields.take("key").unwrap_or_default();
    check_key(&key)?;
    if key.contains("${filename}") {
        return Err(s3_error!(NotImplemented, "The local store does not put the file's name into the key."));
    }
    let declared = Declared::of_form(&fields.map, signed.least, signed.most)?;
    let success = fields.take("success_action_status");
    let headers = fields.headers()?;
    let body = StreamingBlob::wrap(file);
    let object =
        publish(store, bucket.clone(), key.clone(), headers, Condition::default(), body, declared).await?;
    answer(&bucket, &key, &object, success.as_deref())
}

/// 204 unless the form asks for 200 or for 201 with a document.
fn answer(bucket: &str, key: &str, object: &Object, success: Option<&str>) -> S3Result<Response<Body>> {
    let etag = format!("\"{}\"", object.etag);
    let location = format!("/{bucket}/{}", pg_storage_core::presign::encode_key(key));
    let (status, body) = match success {
        Some("200") => (StatusCode::OK, Body::empty()),
        Some("201") => {
            let document = PostResponse { location: &location, bucket, key, etag: &etag };
            (StatusCode::CREATED, Body::from(document::write(&document)?))
        }
        _ => (StatusCode::NO_CONTENT, Body::empty()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [(ETAG, etag), (LOCATION, location)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    if status == StatusCode::CREATED {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    }
    Ok(response)
}
