//! How long URLs and requests live: what was asked for, else the bucket's word, else the server's; by the wall clock.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, confirm, download_url, some_bytes};
use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::{Scene, each_store};
use std::time::{Duration, SystemTime};

#[test]
fn an_expired_url_is_refused_by_the_store_and_by_confirm() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("expired", 100);
        // The bytes arrive in time, the confirmation does not; and the other way round.
        let early = Upload::declared(&bytes).expiring_in("2 seconds").request(&mut ada);
        let late = Upload::declared(&bytes).expiring_in("1 second").request(&mut ada);
        assert!(late.url().contains("X-Amz-Expires=1&"), "{}", late.url());
        assert!(early.put(&bytes).is_success());
        let place = scene.place_of_upload(&early.upload_id);
        assert!(scene.exists(&place));
        let until = early.expires_at.unwrap().duration_since(SystemTime::now()).unwrap_or_default();
        // What is waited for is time itself.
        std::thread::sleep(until + Duration::from_millis(20));

        let answer = late.put(&bytes);
        assert!(matches!(answer.status, 400 | 403), "{} {}", answer.status, answer.text());
        assert!(!scene.exists(&scene.place_of_upload(&late.upload_id)));
        for ticket in [&late, &early] {
            let verdict = confirm(&mut ada, &ticket.upload_id);
            assert_eq!((verdict.outcome(), verdict.finished), (("expired", Some("EXPIRED")), true));
        }
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 0);
        scene.maintain();
        assert!(!scene.exists(&place), "bytes of an expired upload are collected");
    });
}

#[test]
fn expiry_is_counted_from_the_wall_clock_within_a_long_transaction() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let mut transaction = ada.transaction().unwrap();
    transaction.execute("SELECT pg_sleep(2)", &[]).unwrap();
    let row = transaction
        .query_one(
            "SELECT extract(epoch FROM t.expires_at - clock_timestamp())::float8,
                    extract(epoch FROM t.expires_at - now())::float8, t.url,
                    ARRAY(SELECT h.key FROM jsonb_each_text(t.headers) h ORDER BY h.key),
                    ARRAY(SELECT h.value FROM jsonb_each_text(t.headers) h ORDER BY h.key)
             FROM storage.request_upload_url('private', 'a.txt', 'text/plain', 5, expires_in => '60 seconds') t",
            &[],
        )
        .unwrap();
    let (left, since_start): (f64, f64) = (row.get(0), row.get(1));
    assert!((55.0..=60.0).contains(&left), "{left} seconds are left");
    assert!(since_start >= 62.0, "{since_start}");
    let (names, values): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
    let headers: Headers = names.into_iter().zip(values).collect();
    let answer = http::put(row.get(2), &headers, b"hello");
    assert!(answer.is_success(), "{} {}", answer.status, answer.text());
}

#[test]
fn a_lifetime_is_the_one_asked_for_else_the_buckets_else_the_servers() {
    let scene = Scene::local();
    let bytes = some_bytes("lifetime", 20);
    let expires = |url: &str| -> u32 {
        let (_, rest) = url.split_once("X-Amz-Expires=").unwrap();
        rest.split('&').next().unwrap().parse().unwrap()
    };
    // upload and download, of a request that asks for nothing
    let usual = || {
        let mut ada = scene.user("ada");
        let ticket = Upload::of(&bytes).complete(&mut ada, &bytes);
        (expires(ticket.url()), expires(&download_url(&mut ada, &ticket.file_id)))
    };
    assert_eq!(usual(), (900, 3600), "the defaults");
    scene.set("pg_storage.upload_url_ttl", "60");
    scene.set("pg_storage.download_url_ttl", "120");
    assert_eq!(usual(), (60, 120), "the server's");
    scene
        .superuser()
        .batch_execute(
            "UPDATE storage.buckets SET upload_url_ttl = '70 seconds', download_url_ttl = '7 days'",
        )
        .unwrap();
    assert_eq!(usual(), (70, 604_800), "the bucket's");

    let mut ada = scene.user("ada");
    for (asked, seconds) in [("1 second", 1), ("7 days", 604_800), ("1.9 seconds", 1)] {
        let ticket = Upload::of(&bytes).expiring_in(asked).request(&mut ada);
        assert_eq!(expires(ticket.url()), seconds, "{asked}");
    }
    let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
    let url: String =
        ada.query_one("SELECT storage.download_url($1::text::uuid, '5 minutes')", &[&file]).unwrap().get(0);
    assert_eq!(expires(&url), 300);
}

#[test]
fn a_download_url_ends() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("ends", 20);
        let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
        let row = ada
            .query_one(
                "SELECT url, expires_at FROM storage.download_urls(ARRAY[$1::text::uuid], '1 second')",
                &[&file],
            )
            .unwrap();
        let url: &str = row.get(0);
        let until = row.get::<_, SystemTime>(1).duration_since(SystemTime::now()).unwrap_or_default();
        // What is waited for is time itself.
        std::thread::sleep(until + Duration::from_millis(20));
        let answer = http::get(url);
        assert!(matches!(answer.status, 400 | 403), "{} {}", answer.status, answer.text());
        assert!(answer.body != bytes);
    });
}
