//! Our signer against the SDK's presigner: for the same second and the same request, the same URL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_s3::config::{
    BehaviorVersion, Credentials as SdkCredentials, Region, RequestChecksumCalculation,
};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::{Client, Config};
use pg_storage_core::digest::Digest;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Method, Presign, Secret, Signer, Target, Timestamp};
use proptest::prelude::*;

const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Everything that goes into one URL.
#[derive(Clone, Debug)]
struct Case {
    endpoint: &'static str,
    path_style: bool,
    region: &'static str,
    bucket: String,
    key: String,
    token: Option<String>,
    expires: u32,
    at: i64,
}

impl Case {
    fn client(&self) -> Client {
        let credentials = SdkCredentials::new(ACCESS_KEY, SECRET_KEY, self.token.clone(), None, "test");
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.endpoint)
            .region(Region::new(self.region))
            .force_path_style(self.path_style)
            .credentials_provider(credentials)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .build();
        Client::from_conf(config)
    }

    fn validity(&self) -> PresigningConfig {
        PresigningConfig::builder()
            .start_time(UNIX_EPOCH + Duration::from_secs(self.at.unsigned_abs()))
            .expires_in(Duration::from_secs(self.expires.into()))
            .build()
            .unwrap()
    }

    /// Our URL for the same request: what the SDK signs besides the host, plus the parameters it adds.
    fn ours(&self, method: Method, signed: &PresignedRequest, query: &[(&str, &str)]) -> String {
        let endpoint = Endpoint::parse(self.endpoint).unwrap();
        let credentials = Credentials {
            access_key_id: ACCESS_KEY.to_owned(),
            secret_access_key: Secret::new(SECRET_KEY),
            session_token: self.token.clone().map(Secret::new),
        };
        let mut signer = Signer::new(Target::new(&endpoint, self.region, self.path_style), credentials);
        let headers: Vec<(&str, &str)> = signed.headers().collect();
        let request = Presign {
            method,
            bucket: &self.bucket,
            key: &self.key,
            expires: self.expires,
            headers: &headers,
            query,
        };
        signer.url(&request, Timestamp::from_unix(self.at))
    }
}

/// A URL as what its order of parameters cannot change.
fn parts(url: &str) -> (String, BTreeSet<String>) {
    let (place, query) = url.split_once('?').unwrap();
    (place.to_owned(), query.split('&').map(ToOwned::to_owned).collect())
}

fn case() -> impl Strategy<Value = Case> {
    let endpoint = prop_oneof![
        Just("https://s3.example.com"),
        Just("http://localhost:9000"),
        Just("http://127.0.0.1:3900"),
        Just("https://s3.eu-central-1.example.com:8443"),
        Just("http://[::1]:9000"),
    ];
    // What a key may hold: any text; the SDK refuses keys of nothing but white space.
    let key =
        prop_oneof![any::<String>(), "[a-z0-9/._~!$&'()*+,;=:@% \\-]{1,60}", "[\\u{80}-\\u{ffff}]{1,30}",]
            .prop_filter("a key", |key| !key.trim().is_empty());
    (
        endpoint,
        any::<bool>(),
        prop_oneof![Just("us-east-1"), Just("garage"), Just("eu-central-1")],
        "[a-z0-9][a-z0-9-]{1,40}[a-z0-9]",
        key,
        proptest::option::of("[A-Za-z0-9/+=]{1,200}"),
        1_u32..=604_800,
        // From 2001 to 2096.
        1_000_000_000_i64..4_000_000_000,
    )
        .prop_map(|(endpoint, path_style, region, bucket, key, token, expires, at)| Case {
            endpoint,
            path_style,
            region,
            bucket,
            key,
            token,
            expires,
            at,
        })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn put_urls_are_the_sdks(case in case(), body in any::<Vec<u8>>(), bound in any::<bool>()) {
        let client = case.client();
        let mut request = client
            .put_object()
            .bucket(&case.bucket)
            .key(&case.key)
            .content_type("text/plain; charset=utf-8")
            .content_length(i64::try_from(body.len()).unwrap());
        if bound {
            request = request.checksum_sha256(Digest::of(&body).to_base64()).if_none_match("*");
        }
        let signed = runtime().block_on(request.presigned(case.validity())).unwrap();
        let ours = case.ours(Method::Put, &signed, &[("x-id", "PutObject")]);
        prop_assert!(signed.headers().any(|(name, _)| name == "content-length"));
        prop_assert_eq!(signed.headers().any(|(name, _)| name == "x-amz-checksum-sha256"), bound);
        prop_assert_eq!(parts(&ours), parts(signed.uri()));
    }

    #[test]
    fn get_urls_are_the_sdks(case in case(), filename in proptest::option::of(any::<String>())) {
        let client = case.client();
        let disposition = filename.map(|name| format!("attachment; filename=\"{name}\""));
        let request = client
            .get_object()
            .bucket(&case.bucket)
            .key(&case.key)
            .set_response_content_disposition(disposition.clone());
        let signed = runtime().block_on(request.presigned(case.validity())).unwrap();
        let mut query = vec![("x-id", "GetObject")];
        if let Some(disposition) = &disposition {
            query.push(("response-content-disposition", disposition));
        }
        prop_assert_eq!(parts(&case.ours(Method::Get, &signed, &query)), parts(signed.uri()));
    }
}
