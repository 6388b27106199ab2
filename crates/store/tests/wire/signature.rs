//! Checks presigned URLs as a store does: by signing again what arrived.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Method, Presign, Secret, Signer, Target, Timestamp};

use crate::canned::{ACCESS_KEY, Request, SECRET_KEY};

pub fn signer(url: &str) -> Signer {
    let credentials = Credentials {
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: Secret::new(SECRET_KEY),
        session_token: None,
    };
    Signer::new(Target::new(&Endpoint::parse(url).unwrap(), "us-east-1", true), credentials)
}

/// Whether a request to `/bucket/key` is signed, not expired, and has every signed header. If it lacks `tolerated`, a
/// signed header, anything goes.
pub fn permits(request: &Request, tolerated: Option<&str>) -> bool {
    let signed = parameter(request, "X-Amz-SignedHeaders").replace("%3B", ";");
    let signed: Vec<&str> = signed.split(';').filter(|name| *name != "host").collect();
    if tolerated.is_some_and(|name| signed.contains(&name) && request.header(name).is_none()) {
        return true;
    }
    let mut headers = Vec::new();
    for name in signed {
        let Some(value) = request.header(name) else { return false };
        headers.push((name, value));
    }
    let at = signed_at(parameter(request, "X-Amz-Date"));
    let expires: u32 = parameter(request, "X-Amz-Expires").parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    if at + i64::from(expires) < i64::try_from(now).unwrap() {
        return false;
    }
    let (bucket, key) = request.path[1..].split_once('/').unwrap();
    let method = match request.method.as_str() {
        "GET" => Method::Get,
        "PUT" => Method::Put,
        _ => return false,
    };
    let asked: Vec<(&str, String)> = request
        .query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| !name.starts_with("X-Amz-"))
        .map(|(name, value)| (name, decoded(value)))
        .collect();
    let asked: Vec<(&str, &str)> = asked.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let again = Presign { method, bucket, key, expires, headers: &headers, query: &asked };
    let url = format!("http://{}", request.header("host").unwrap());
    signer(&url).url(&again, Timestamp::from_unix(at)) == format!("{url}{}?{}", request.path, request.query)
}

/// A parameter's value without its percent encoding.
pub fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn parameter<'a>(request: &'a Request, name: &str) -> &'a str {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
}

/// `20260131T235959Z` in seconds since 1970.
fn signed_at(date: &str) -> i64 {
    let (day, time) = date.split_once('T').unwrap();
    let text =
        format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..4], &time[4..6]);
    DateTime::from_str(&text, DateTimeFormat::DateTime).unwrap().secs()
}
