//! What caches may keep: public files for good, private ones as long as their URL stays the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_storage_tests::flow::{Upload, confirm, download_url, some_bytes};
use pg_storage_tests::http::{self, Headers, Response};
use pg_storage_tests::parts::{request_form, request_parts, send_parts};
use pg_storage_tests::scene::takes_parts;
use pg_storage_tests::{Cluster, LocalStore, Scene, each_store, refused, scene};
use postgres::Client;

/// Whether uploads to the store carry a mark, and are copied with all that they say of themselves.
const MARKED: &str = "SELECT capabilities ->> 'unsigned' = 'ignored' FROM storage.store_capabilities";
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

fn said(answer: &Response) -> Option<&str> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.headers.get("cache-control").map(String::as_str)
}

fn public_url(session: &mut Client, file: &str) -> String {
    session.query_one("SELECT storage.public_url($1::text::uuid)", &[&file]).unwrap().get(0)
}

fn parameter<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A period that does not end while the test runs.
fn long_period() -> u64 {
    let mut periods = (2400..=3600).step_by(100);
    periods.find(|period| period - unix() % period > 300).expect("they do not all end at once")
}

#[test]
fn public_files_are_kept_for_good_however_they_came() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = |name: &str| some_bytes(&format!("{} {name}", scene.prefix), 50);
        let staged = Upload::of(&bytes("staged")).to("public").complete(&mut ada, &bytes("staged"));
        let declared = Upload::declared(&bytes("declared")).to("public");
        let declared = declared.complete(&mut ada, &bytes("declared"));
        let put = "SELECT (storage.put_file('public', 'a.txt', $1, 'text/plain')).id::text";
        let put: String = ada.query_one(put, &[&bytes("put")]).unwrap().get(0);
        let private = Upload::of(&bytes("private")).complete(&mut ada, &bytes("private"));
        for ticket in [&staged, &declared] {
            assert_eq!(ticket.headers.get("cache-control").map(String::as_str), Some(FOR_GOOD));
        }
        assert!(!private.headers.contains_key("cache-control"), "{:?}", private.headers);

        let form = request_form(&mut ada, &Upload::of(&bytes("form")).to("public"));
        assert!(form.post(&bytes("form")).is_success());
        assert_eq!(confirm(&mut ada, &form.upload_id).outcome(), ("uploaded", None));
        let parts = if takes_parts() {
            let parts = request_parts(&mut ada, &Upload::of(&bytes("parts")).to("public"));
            send_parts(&mut ada, &parts.upload_id, &[1], &bytes("parts"));
            assert_eq!(confirm(&mut ada, &parts.upload_id).outcome(), ("uploaded", None));
            Some(parts.file_id)
        } else {
            None
        };

        let copy = "SELECT (storage.copy_file($1::text::uuid, 'public')).id::text";
        let copied: String = ada.query_one(copy, &[&private.file_id]).unwrap().get(0);
        let mut files = vec![&staged.file_id, &declared.file_id, &put, &copied, &form.file_id];
        files.extend(&parts);
        let mut urls = Vec::new();
        for file in &files {
            let place = scene.place_of_file(file);
            let head = scene.at_store(
                pg_storage_core::presign::Method::Head,
                (&place.0, &place.1),
                &Headers::new(),
                &[],
            );
            assert_eq!(said(&head), Some(FOR_GOOD), "{file}");
            assert_eq!(said(&http::get(&download_url(&mut ada, file))), Some("no-store"), "{file}");
            let url = public_url(&mut ada, file);
            assert_eq!(url, public_url(&mut ada, file));
            assert_eq!(url, format!("{}/{}/{}", scene.store.endpoint, place.0, place.1));
            urls.push(url);
        }
        assert_eq!(said(&http::get(&download_url(&mut ada, &private.file_id))), None);

        // Other bytes have another URL, also under the same path, and a file that is private again is told to no cache.
        let page = |bytes: &[u8]| Upload::of(bytes).to("public").at("page.txt");
        let first = page(&bytes("first")).complete(&mut ada, &bytes("first")).file_id;
        let second = page(&bytes("second")).complete(&mut ada, &bytes("second")).file_id;
        assert_ne!(public_url(&mut ada, &first), public_url(&mut ada, &second));
        let set = "SELECT (storage.set_file_access($1::text::uuid, 'private')).id::text";
        let hidden: String = ada.query_one(set, &[&first]).unwrap().get(0);
        assert_eq!(said(&http::get(&download_url(&mut ada, &hidden))), None);

        // One formula, whatever the base.
        scene.set("pg_storage.public_url_base", "https://cdn.example.com/files");
        let mut ada = scene.user("ada");
        for (file, url) in files.into_iter().zip(urls) {
            let behind = url.strip_prefix(&scene.store.endpoint).unwrap();
            assert_eq!(public_url(&mut ada, file), format!("https://cdn.example.com/files{behind}"));
        }
    });
}

#[test]
fn what_caches_are_told_is_signed_or_not_believed() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("told", 50);
    let ticket = Upload::declared(&bytes).to("public").request(&mut ada);
    for other in [None, Some("no-store"), Some("public, max-age=1")] {
        let mut headers = ticket.headers.clone();
        headers.remove("cache-control");
        headers.extend(other.map(|other| ("cache-control".to_owned(), other.to_owned())));
        let answer = http::put(ticket.url(), &headers, &bytes);
        assert!(matches!(answer.status, 400 | 403), "{other:?}: {} {}", answer.status, answer.text());
    }
    assert!(ticket.put(&bytes).is_success());
    assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));

    // What is copied to its final key leaves it behind, unless it has to keep a mark.
    let is_kept = scene.direct || scene.value(MARKED);
    // A browser adds the first ones where its user reloads.
    for (unsigned, outcome) in [
        ("no-cache", ("uploaded", None)),
        ("max-age=0", ("uploaded", None)),
        ("public, max-age=31536000", ("rejected", Some("CONTENT_TYPE_MISMATCH"))),
        ("S-MaxAge = 60", ("rejected", Some("CONTENT_TYPE_MISMATCH"))),
    ] {
        let bytes = some_bytes(unsigned, 50);
        let mut ticket = Upload::declared(&bytes).request(&mut ada);
        ticket.headers.insert("cache-control".to_owned(), unsigned.to_owned());
        assert!(ticket.put(&bytes).is_success());
        let verdict = confirm(&mut ada, &ticket.upload_id);
        if is_kept {
            assert_eq!(verdict.outcome(), outcome, "{verdict:?}");
        } else {
            assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
            assert_eq!(said(&http::get(&download_url(&mut ada, &ticket.file_id))), None);
        }
    }
}

#[test]
fn within_a_period_a_file_has_one_url_and_a_cache_may_keep_its_bytes() {
    each_store(|scene| {
        let period = long_period();
        scene.set("pg_storage.download_url_period", &period.to_string());
        let mut ada = scene.user("ada");
        let bytes = some_bytes(&format!("{} period", scene.prefix), 50);
        let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
        let volatility: Vec<String> = ada
            .query(
                "SELECT DISTINCT provolatile::text FROM pg_proc
                 WHERE proname IN ('download_url', 'download_urls', 'files_download_url')
                   AND pronamespace = 'storage'::regnamespace",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(volatility, ["s"]);

        // One statement, a second one later, and another session.
        let all = "SELECT storage.download_url(f.id), s.url, storage.files_download_url(f), s.expires_at
                   FROM storage.files f, storage.download_urls(ARRAY[f.id]) s WHERE f.id = $1::text::uuid";
        let row = ada.query_one(all, &[&file]).unwrap();
        let url: String = row.get(0);
        assert_eq!((row.get::<_, String>(1), row.get::<_, String>(2)), (url.clone(), url.clone()));
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(download_url(&mut ada, &file), url);
        assert_eq!(download_url(&mut scene.user("ada"), &file), url);

        // It says when it ends: in the time asked for at least, and at the end of a period.
        let lives: u64 = parameter(&url, "X-Amz-Expires").unwrap().parse().unwrap();
        assert_eq!(lives, 3600 + period);
        let ends = row.get::<_, SystemTime>(3).duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!((ends - lives) % period, 0);
        assert!(ends >= unix() + 3600);
        let answer = http::get(&url);
        assert_eq!(said(&answer), Some(format!("max-age={period}").as_str()));
        assert_eq!(answer.body, bytes);

        // What is asked for otherwise is another URL, and none lives twice as long as was asked for.
        let mut asked = |expires: &str| -> String {
            let query = "SELECT storage.download_url($1::text::uuid, $2::text::interval)";
            ada.query_one(query, &[&file, &expires]).unwrap().get(0)
        };
        for (expires, lives) in
            [("10 seconds", 20), ("1 second", 2), ("7 days", 604_800), ("604799 seconds", 604_800)]
        {
            let url = asked(expires);
            assert_eq!(parameter(&url, "X-Amz-Expires").unwrap(), lives.to_string(), "{expires}");
            assert_eq!(said(&http::get(&url)).is_some(), expires != "7 days", "{url}");
        }

        scene.set("pg_storage.download_url_period", "0");
        let mut ada = scene.user("ada");
        let first = download_url(&mut ada, &file);
        assert_eq!(parameter(&first, "X-Amz-Expires"), Some("3600"));
        assert_eq!(parameter(&first, "response-cache-control"), None);
        std::thread::sleep(Duration::from_millis(1100));
        assert_ne!(download_url(&mut ada, &file), first);
    });
}

#[test]
fn a_url_that_others_have_too_gives_nothing_that_they_may_not_see() {
    let scene = Scene::local();
    scene.set("pg_storage.download_url_period", "1h");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("not yours", 50);
    let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
    download_url(&mut ada, &file);
    let mut eve = scene.stranger("eve", "evil");
    let ask = format!("SELECT storage.download_url('{file}')");
    assert_eq!(refused(eve.query(ask.as_str(), &[])).code(), ("42704", "FILE_NOT_FOUND"));
    let set = "SET pg_storage.download_url_period = '7d'";
    assert_eq!(refused(eve.batch_execute(set)).sqlstate, "42501");

    // Nor does it outlast what it says: change any of it, and nothing comes.
    let url = download_url(&mut ada, &file);
    for (from, to) in [
        ("X-Amz-Expires=7200", "X-Amz-Expires=604800"),
        ("response-cache-control=max-age%3D3600", "response-cache-control=public"),
        ("response-cache-control=max-age%3D3600&", ""),
    ] {
        assert!(url.contains(from), "{url}");
        let answer = http::get(&url.replace(from, to));
        assert!(matches!(answer.status, 400 | 403), "{to}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn a_url_ends_when_it_says_whoever_asked_last() {
    let mut store = LocalStore::start();
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(scene::remote(store.access()))));
    let access = store.access().clone();
    let scene = Scene::on(cluster, &access);
    scene.set("pg_storage.download_url_period", "1h");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("ends", 50);
    let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
    let url = download_url(&mut ada, &file);
    // An hour was asked for; less than two are given.
    for (clock, status) in [("+59m", 200), ("+121m", 403)] {
        store.stop("TERM");
        store.start_skewed(clock);
        assert_eq!(http::get(&url).status, status, "{clock}");
    }
}
