//! One presigned URL, next to the hash and the HMAC that no signer can do without, on the same request.
//!
//! The goal is that the first costs at most twice the second.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::disposition::content_disposition;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::key::content_key;
use pg_storage_core::presign::{Credentials, Method, Presign, Secret, Signer, Target, Timestamp};
use pg_storage_core::upload::signed_headers;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// 2013-05-24 00:00 UTC.
const AT: i64 = 1_369_353_600;

fn signer(token: Option<Secret>) -> Signer {
    let endpoint = Endpoint::parse("https://s3.eu-central-1.amazonaws.com").unwrap();
    let credentials = Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        session_token: token,
    };
    Signer::new(Target::new(&endpoint, "eu-central-1", false), credentials)
}

fn bench(criterion: &mut Criterion) {
    let digest = Digest::of(b"content");
    let key = content_key("acme", &Uuid::from_u128(1), &digest, &Uuid::from_u128(2));
    let png = ContentType::parse("image/png").unwrap();
    let headers = signed_headers(&png, 1024, Some(&digest), true, None, None);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let bucket = "acme-private-0123456789ab";
    let put = Presign { method: Method::Put, bucket, key: &key, expires: 900, headers: &headers, query: &[] };
    let disposition = content_disposition(true, "invoice.pdf");
    let query = [("response-content-disposition", disposition.as_str())];
    let get = Presign { method: Method::Get, headers: &[], query: &query, ..put };
    let at = Timestamp::from_unix(AT);

    // Lengths of the canonical request and of the string to sign of the PUT: the URL from its path on, and the headers twice.
    let url = signer(None).url(&put, at);
    let header_bytes: usize = headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum();
    let canonical = vec![b'a'; url.len() + header_bytes];
    let to_sign = [b'a'; 140];

    let mut group = criterion.benchmark_group("presign");
    group.bench_function("baseline: hash and HMAC", |bencher| {
        let keyed = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        bencher.iter(|| {
            let hash = Sha256::digest(black_box(&canonical));
            let mut mac = keyed.clone();
            mac.update(black_box(&to_sign));
            (hash, mac.finalize().into_bytes())
        });
    });
    group.bench_function("PUT, content bound", |bencher| {
        let mut signer = signer(None);
        bencher.iter(|| signer.url(black_box(&put), black_box(at)));
    });
    group.bench_function("GET with a disposition", |bencher| {
        let mut signer = signer(None);
        bencher.iter(|| signer.url(black_box(&get), black_box(at)));
    });
    group.bench_function("PUT with a session token", |bencher| {
        let mut signer = signer(Some(Secret::new("t/+".repeat(300))));
        bencher.iter(|| signer.url(black_box(&put), black_box(at)));
    });
    group.bench_function("timestamp", |bencher| bencher.iter(|| Timestamp::from_unix(black_box(AT))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
