//! Uploads by HTML form: what the policy fixes is fixed.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::presign::{Form, Timestamp};

use crate::durability::blobs;
use crate::harness::{REGION, Reply, Server, now};

type Fields = Vec<(String, String)>;

fn fields(server: &Server, max_size: u64, expires: u32, at: i64) -> Fields {
    let content_type = ContentType::parse("image/png").unwrap();
    let form = Form { bucket: "bucket", key: "dir/k", content_type: &content_type, max_size, expires };
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
    server.send("POST", "/bucket/", &[("Content-Type", "multipart/form-data; boundary=xyz")], &body)
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
    let cut = server.send(
        "POST",
        "/bucket/",
        &[("Content-Type", "multipart/form-data; boundary=xyz")],
        b"--xyz\r\n",
    );
    assert_eq!(cut.verdict(), (400, "MalformedPOSTRequest".into()));
    assert_eq!(post(&server, &good, b"x").status, 204);
}
