//! The rules of Signature Version 4 that s3s leaves to its embedder.
//!
//! From "Authenticating Requests: Using Query Parameters" and "Using the Authorization Header" of the S3 API
//! reference: one mechanism, complete parameters, at most seven days, the right region and service, and every
//! `x-amz-*` header signed. s3s checks the signature, the clock and the payload.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use s3s::{S3Error, S3Result, s3_error};

/// The longest a presigned URL lives: seven days, in seconds.
const MAX_EXPIRES: u32 = 604_800;

/// The query parameters of a presigned URL.
const PRESIGNED: [&str; 6] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
];

/// Refuses a request that S3 refuses whatever its signature; moves signed `x-amz-*` parameters of a presigned URL
/// to the headers they stand for.
pub fn check(parts: &mut Parts, region: &str) -> S3Result<()> {
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let query: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(query.as_bytes()).collect();
    let has = |name: &str| query.iter().any(|(present, _)| present == name);
    let authorization = parts.headers.get(http::header::AUTHORIZATION);

    if has("AWSAccessKeyId") || has("Signature") {
        return Err(only_v4());
    }
    let presigned = PRESIGNED.into_iter().any(has);
    let token = parts.headers.contains_key("x-amz-security-token") || has("X-Amz-Security-Token");
    match (presigned, authorization) {
        (false, None) => return Ok(()),
        (true, Some(_)) => {
            return Err(s3_error!(
                InvalidArgument,
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
                 parameter or the Authorization header should be specified"
            ));
        }
        (false, Some(value)) => {
            let value = value.to_str().map_err(|_| malformed("is not text"))?.to_owned();
            check_header(&value, parts, region)?;
        }
        (true, None) => check_query(&query, parts, region)?,
    }
    if token {
        return Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."));
    }
    if presigned {
        hoist(&query, parts);
    }
    Ok(())
}

fn only_v4() -> S3Error {
    s3_error!(
        InvalidRequest,
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    )
}

fn malformed(what: &str) -> S3Error {
    s3_error!(AuthorizationHeaderMalformed, "The authorization header {what}")
}

fn bad_query(what: &str) -> S3Error {
    s3_error!(AuthorizationQueryParametersError, "{what}")
}

fn check_header(value: &str, parts: &Parts, region: &str) -> S3Result<()> {
    let fields = value.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(only_v4)?;
    let field = |name: &str| {
        fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| malformed(&format!("lacks {name}")))
    };
    check_scope(field("Credential")?, region).map_err(|what| malformed(&what))?;
    check_signed(field("SignedHeaders")?, parts)
}

fn check_query(query: &[(Cow<'_, str>, Cow<'_, str>)], parts: &Parts, region: &str) -> S3Result<()> {
    let one = |name: &str| {
        let mut values = query.iter().filter(|(present, _)| present == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(bad_query(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, \
                 X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters, each once.",
            )),
        }
    };
    for name in PRESIGNED {
        one(name)?;
    }
    if one("X-Amz-Algorithm")? != "AWS4-HMAC-SHA256" {
        return Err(bad_query("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
    }
    match one("X-Amz-Expires")?.parse::<u32>() {
        Ok(1..=MAX_EXPIRES) => {}
        _ => {
            return Err(bad_query("X-Amz-Expires must be a number of seconds from 1 to a week (604800)"));
        }
    }
    check_scope(one("X-Amz-Credential")?, region).map_err(|what| bad_query(&what))?;
    check_signed(one("X-Amz-SignedHeaders")?, parts)
}

/// `key/date/region/service/aws4_request`; the access key itself may hold slashes.
pub fn check_scope(credential: &str, region: &str) -> Result<(), String> {
    let mut fields = credential.rsplit('/');
    let (terminal, service, named) = (fields.next(), fields.next(), fields.next());
    if terminal != Some("aws4_request") {
        return Err("is malformed; the credential scope must end in \"aws4_request\"".to_owned());
    }
    if service != Some("s3") {
        return Err("is malformed; incorrect service. This endpoint belongs to \"s3\"".to_owned());
    }
    if named != Some(region) {
        return Err(format!("is malformed; the region is wrong; expecting '{region}'"));
    }
    Ok(())
}

fn check_signed(signed: &str, parts: &Parts) -> S3Result<()> {
    let signs = |name: &str| signed.split(';').any(|item| item == name);
    if !signs("host") {
        return Err(s3_error!(AccessDenied, "The host header must be signed."));
    }
    let unsigned =
        parts.headers.keys().any(|name| name.as_str().starts_with("x-amz-") && !signs(name.as_str()));
    if unsigned {
        return Err(s3_error!(
            AccessDenied,
            "There were headers present in the request which were not signed"
        ));
    }
    // A header that is signed but absent cannot verify; said here, the reason is plain.
    if let Some(absent) = signed.split(';').find(|name| !parts.headers.contains_key(*name)) {
        return Err(custom_signed(absent));
    }
    Ok(())
}

fn custom_signed(absent: &str) -> S3Error {
    s3_error!(SignatureDoesNotMatch, "The signed header {absent} is missing from the request.")
}

/// Signers may put `x-amz-*` headers into the query of a presigned URL; they count like headers.
/// An unsigned header of the same name was refused before.
fn hoist(query: &[(Cow<'_, str>, Cow<'_, str>)], parts: &mut Parts) {
    for (name, value) in query {
        let lower = name.to_ascii_lowercase();
        if !lower.starts_with("x-amz-") || PRESIGNED.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(lower), HeaderValue::from_str(value)) {
            parts.headers.entry(name).or_insert(value);
        }
    }
}
