//! One presigned URL: by the signer alone, in SQL in batches, and by others.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as SdkCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Region};
use aws_sdk_s3::presigning::PresigningConfig;
use pg_storage_core::disposition::content_disposition;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Method, Presign, Secret, Signer, Target, Timestamp};
use pg_storage_tests::Scene;
use postgres::Client as Session;
use uuid::Uuid;

use crate::hashing::Hashing;
use crate::median::{in_turns, micros_each, time};
use crate::sizes::Sizes;
use crate::table::Row;

const ENDPOINT: &str = "https://s3.eu-central-1.amazonaws.com";
const REGION: &str = "eu-central-1";
const BUCKET: &str = "acme-private-0123456789ab";
const FILENAME: &str = "invoice.pdf";
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// The signer alone, then others at the same task. Each row is about the same URL but for the time and the signature.
pub fn rows_outside(sizes: Sizes) -> Vec<Row> {
    let keys: Vec<String> = (0..sizes.urls).map(key).collect();
    let mut signer = signer();
    // As in SQL, all URLs of a batch begin at one time.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    let at = Timestamp::from_unix(now.as_secs() as i64);
    let disposition = content_disposition(true, FILENAME);
    let hashing = Hashing::of(&sign(&mut signer, &keys[0], &disposition, at), REGION);
    let (ours, hashes) = in_turns(
        sizes.rounds,
        || {
            micros_each(
                time(|| {
                    keys.iter().for_each(|key| drop(black_box(sign(&mut signer, key, &disposition, at))))
                }),
                keys.len(),
            )
        },
        || micros_each(time(|| keys.iter().for_each(|_| hashing.once())), keys.len()),
    );
    let mut rows = vec![
        Row::new("sign one URL, the signer alone", format!("{ours:.2} µs"))
            .against(format!("{hashes:.2} µs hash and HMAC alone"), ours / hashes)
            .goal("≤ 2", ours <= 2.0 * hashes),
    ];
    let sdk = sdk(sizes, &keys);
    let compared = |whose: &str, theirs: f64| {
        Row::new(format!("the same by {whose}"), format!("{theirs:.2} µs"))
            .against(format!("{ours:.2} µs our signer"), theirs / ours)
    };
    rows.push(compared("the Rust SDK's presigner", sdk));
    rows.push(match boto3(sizes) {
        Ok((version, boto3)) => compared(&format!("boto3 {version}"), boto3),
        Err(why) => Row::new(format!("the same by boto3: {why}"), "0 signed"),
    });
    rows
}

fn key(at: usize) -> String {
    let hash = format!("{at:064x}");
    format!("acme/{}/{hash}/{}", Uuid::from_u128(1), Uuid::from_u128(at as u128))
}

fn signer() -> Signer {
    let endpoint = Endpoint::parse(ENDPOINT).expect("an endpoint");
    let credentials = Credentials {
        access_key_id: ID.to_owned(),
        secret_access_key: Secret::new(SECRET),
        session_token: None,
    };
    Signer::new(Target::new(&endpoint, REGION, false), credentials)
}

fn sign(signer: &mut Signer, key: &str, disposition: &str, at: Timestamp) -> String {
    let request = Presign {
        method: Method::Get,
        bucket: BUCKET,
        key,
        expires: 3600,
        headers: &[],
        query: &[("response-content-disposition", disposition)],
    };
    signer.url(&request, at)
}

/// Microseconds for one URL of the SDK.
fn sdk(sizes: Sizes, keys: &[String]) -> f64 {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(SdkCredentials::new(ID, SECRET, None, None, "bench"))
        .build();
    let client = Client::from_conf(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let lifetime = PresigningConfig::expires_in(Duration::from_secs(3600)).expect("a lifetime");
    let disposition = content_disposition(true, FILENAME);
    // It takes long enough for fewer to tell.
    let keys = &keys[..keys.len().div_ceil(10)];
    let all = || {
        runtime.block_on(async {
            for key in keys {
                let get =
                    client.get_object().bucket(BUCKET).key(key).response_content_disposition(&disposition);
                black_box(get.presigned(lifetime.clone()).await.expect("the SDK signs"));
            }
        });
    };
    crate::median::median((0..sizes.rounds).map(|_| micros_each(time(all), keys.len())).collect())
}

/// Version and microseconds for one URL of boto3, or why there are none.
fn boto3(sizes: Sizes) -> Result<(String, f64), String> {
    let python = std::env::var_os("PG_STORAGE_BOTO3").filter(|python| !python.is_empty());
    let python = python.ok_or("not installed")?;
    let output = Command::new(python)
        .arg("-c")
        .arg(include_str!("../presign.py"))
        .args([&sizes.urls.div_ceil(10).to_string(), &sizes.rounds.to_string()])
        .args([REGION, BUCKET, FILENAME])
        .env("AWS_ACCESS_KEY_ID", ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let (version, micros) = said.trim().split_once(' ').ok_or("it did not run")?;
    Ok((version.to_owned(), micros.parse().map_err(|_| "it said no number")?))
}

/// In SQL: files of a user, under the default policies, in batches.
pub fn rows_in_sql(sizes: Sizes, scene: &Scene, user: &mut Session) -> Vec<Row> {
    let files = crate::files::add(scene, sizes.urls);
    let smaller = files.len().div_ceil(10);
    [smaller, files.len()].map(|count| batch(sizes, scene, user, &files[..count])).into()
}

fn batch(sizes: Sizes, scene: &Scene, user: &mut Session, files: &[Uuid]) -> Row {
    let ids: Vec<String> = files.iter().map(Uuid::to_string).collect();
    let one = user
        .query_one("SELECT s.url FROM storage.download_urls(ARRAY[$1::text::uuid]) s", &[&ids[0]])
        .expect("sign one");
    let hashing = Hashing::of(one.get(0), &scene.store.region);
    // Ids that the server has already: sending and reading them is no part of signing.
    user.batch_execute("DROP TABLE IF EXISTS wanted; CREATE TEMPORARY TABLE wanted (ids uuid[])")
        .expect("a table");
    user.execute("INSERT INTO wanted VALUES ($1::text[]::uuid[])", &[&ids]).expect("fill the table");
    let statement = user
        .prepare("SELECT count(s.url) FROM wanted w, storage.download_urls(w.ids) s")
        .expect("prepare the batch");
    // So often PostgreSQL plans for the very values before it keeps a plan.
    for _ in 0..6 {
        user.query_one(&statement, &[]).expect("sign the batch");
    }
    let (ours, hashes) = in_turns(
        sizes.rounds * 3,
        || {
            micros_each(
                time(|| {
                    let signed = user.query_one(&statement, &[]).expect("sign the batch").get::<_, i64>(0);
                    assert_eq!(signed as usize, ids.len(), "every file has its URL");
                }),
                ids.len(),
            )
        },
        || micros_each(time(|| ids.iter().for_each(|_| hashing.once())), ids.len()),
    );
    Row::new(
        format!("download_urls of {}, each, with row-level security", ids.len()),
        format!("{ours:.2} µs"),
    )
    .against(format!("{hashes:.2} µs hash and HMAC alone"), ours / hashes)
    .goal("≤ 3 µs and ≤ 2", ours <= 3.0 && ours <= 2.0 * hashes)
}
