//! Uploads by HTML form: what the policy fixes is fixed.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::presign::{Form, Timestamp};

use crate::durability::{blobs, peak_memory};
use crate::harness::{REGION, Reply, Server, now};

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=xyz");

type Fields = Vec<(String, String)>;

fn fields(server: &Server, max_size: u64, expires: u32, at: i64) -> Fields {
    let content_type = ContentType::parse("image/png").unwrap();
    let form = Form {
        bucket: "bucket",
        key: "dir/k",
        content_type: &content_type,
        max_size,
        expires,
        mark: None,
        cache_control: None,
    };
    let signed = server.signer(REGION, None).form(&form, Timestamp::from_unix(at));
    signed.fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn post(server: &Server, fields: &[(String, String)], file: &[u8]) -> Reply {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n");
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--xyz--\r\n");
    server.send("POST", "/bucket/", &[FORM], &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_form_stores_its_file() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let stored = post(&server, &fields(&server, 100, 60, now()), b"picture");
    assert_eq!(stored.status, 204, "{:?}", String::from_utf8_lossy(&stored.body));
    assert!(stored.header("etag").is_some());
    let read = client.get_object().bucket("bucket").key("dir/k").send().await.unwrap();
    assert_eq!(read.content_type(), Some("image/png"));
    assert_eq!(read.body.collect().await.unwrap().to_vec(), b"picture");
    // A form signed an hour ago for two hours is as good as a fresh one.
    assert_eq!(post(&server, &fields(&server, 100, 7200, now() - 3600), b"again").status, 204);
    assert!(server.log().contains("POST /bucket/ 204 PostObject"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_takes_what_its_policy_says_and_nothing_else() {
    let server = Server::start();
    server.with_bucket().await;
    let good = fields(&server, 10, 60, now());
    assert_eq!(post(&server, &good, b"12345678901").verdict(), (400, "EntityTooLarge".into()));
    assert_eq!(post(&server, &good, b"").verdict(), (400, "EntityTooSmall".into()));
    assert_eq!(
        post(&server, &fields(&server, 10, 60, now() - 61), b"x").verdict(),
        (403, "AccessDenied".into())
    );
    for index in 0..good.len() {
        let mut absent = good.clone();
        let (name, value) = absent.remove(index);
        assert_eq!(post(&server, &absent, b"x").status, 403, "without {name}");
        let mut changed = good.clone();
        let last = value.chars().last().unwrap();
        let other = if last == '1' { '2' } else { '1' };
        changed[index].1 = format!("{}{other}", &value[..value.len() - 1]);
        let status = post(&server, &changed, b"x").status;
        assert!(matches!(status, 400 | 403), "other {name}: {status}");
    }
    for extra in ["x-amz-meta-colour", "acl", "Cache-Control", "success_action_status"] {
        let mut fields = good.clone();
        fields.push((extra.to_owned(), "x".to_owned()));
        assert_eq!(post(&server, &fields, b"x").verdict(), (403, "AccessDenied".into()), "{extra}");
    }
    let mut large = good.clone();
    large.push(("x-ignore-this".to_owned(), "x".repeat(30_000)));
    assert_eq!(post(&server, &large, b"x").verdict(), (400, "MaxPostPreDataLengthExceededError".into()));
    assert_eq!(blobs(&server), 0);
    let cut = server.send("POST", "/bucket/", &[FORM], b"--xyz\r\n");
    assert_eq!(cut.verdict(), (400, "MalformedPOSTRequest".into()));
    assert_eq!(post(&server, &good, b"x").status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_must_say_which_bucket_and_which_key() {
    let server = Server::start();
    server.with_bucket().await;
    let good = fields(&server, 10, 60, now());
    let value = |name: &str| good.iter().find(|(field, _)| field == name).unwrap().1.clone();
    let policy = base64_simd::STANDARD.decode_to_vec(value("policy")).unwrap();
    let policy: serde_json::Value = serde_json::from_slice(&policy).unwrap();
    let without = |condition: &dyn Fn(&serde_json::Value) -> bool| {
        let mut policy = policy.clone();
        policy["conditions"].as_array_mut().unwrap().retain(|present| !condition(present));
        let policy = base64_simd::STANDARD.encode_to_string(policy.to_string());
        let signature = server.signature(&value("x-amz-date")[..8], &policy);
        let mut fields = good.clone();
        for (name, value) in &mut fields {
            match name.as_str() {
                "policy" => value.clone_from(&policy),
                "x-amz-signature" => value.clone_from(&signature),
                _ => {}
            }
        }
        post(&server, &fields, b"x").verdict()
    };
    assert_eq!(without(&|_| false), (204, String::new()), "signed anew, unchanged");
    assert_eq!(without(&|condition| condition.get("bucket").is_some()), (403, "AccessDenied".into()));
    assert_eq!(without(&|condition| condition[1] == "$key"), (403, "AccessDenied".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_fill_the_memory_with_what_comes_before_the_file() {
    const SIZE: usize = 48 << 20;
    let server = Server::start();
    server.with_bucket().await;
    assert_eq!(post(&server, &fields(&server, 10, 60, now()), b"x").status, 204);
    let before = peak_memory(&server);
    let endless_header = "--xyz\r\nContent-Disposition: form-data; name=\"key\"\r\nX-Long: ";
    for start in ["", "--xy", endless_header] {
        let mut body = start.as_bytes().to_vec();
        body.resize(SIZE, b'x');
        let refused = server.send("POST", "/bucket/", &[FORM], &body);
        assert_eq!(refused.verdict(), (400, "MaxPostPreDataLengthExceededError".into()), "{start:?}");
    }
    let grown = peak_memory(&server) - before;
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert_eq!(blobs(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_be_larger_than_all_that_comes_before_it() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let file: Vec<u8> = (0..3usize << 20).map(|index| (index * 31 % 251) as u8).collect();
    assert_eq!(post(&server, &fields(&server, 4 << 20, 60, now()), &file).status, 204);
    let read = client.get_object().bucket("bucket").key("dir/k").send().await.unwrap();
    assert!(read.body.collect().await.unwrap().to_vec() == file);
}
