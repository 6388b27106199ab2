//! Everything that core makes of texts for somebody else to parse: URLs, forms, `Content-Disposition`, policies. Whatever
//! goes in, what comes out is one value in its language.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::disposition::content_disposition;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::policy::public_read;
use pg_storage_core::presign::{
    Credentials, Form, Method, Presign, Secret, Signer, Target, Timestamp, plain_url,
};

use crate::input::Input;

const METHODS: [Method; 5] = [Method::Get, Method::Put, Method::Head, Method::Delete, Method::Post];
const ENDPOINTS: [&str; 3] = ["http://127.0.0.1:9000", "https://s3.example.com/base", "https://example.com"];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (method, endpoint, path_style) = (input.choice(&METHODS), input.choice(&ENDPOINTS), input.one_in(2));
    let (bucket, key, filename, header, token) =
        (input.text(), input.text(), input.text(), input.text(), input.text());
    let endpoint = Endpoint::parse(endpoint).unwrap();
    let target = Target::new(&endpoint, &input.text(), path_style);
    let credentials = Credentials {
        access_key_id: input.text(),
        secret_access_key: Secret::new("the secret that no output has"),
        session_token: Some(Secret::new(token)),
    };
    let plain = plain_url(&target, &bucket, &key);
    check_url(&plain);
    assert!(!plain.contains('?'));
    let disposition = content_disposition(input.one_in(2), &filename);
    check_disposition(&disposition);

    let mut signer = Signer::new(target, credentials);
    let at = Timestamp::from_unix(i64::from(input.byte()) << 24);
    let headers = [("content-type", header.as_str()), ("x-amz-meta-name", filename.as_str())];
    let query = [("response-content-disposition", disposition.as_str()), ("versionId", filename.as_str())];
    let request =
        Presign { method, bucket: &bucket, key: &key, expires: 60, headers: &headers, query: &query };
    let url = signer.url(&request, at);
    check_url(&url);
    assert!(!url.contains("the secret") && !format!("{signer:?}").contains("the secret"));
    let (_, parameters) = url.split_once('?').unwrap();
    let names: Vec<&str> = parameters.split('&').map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    assert_eq!(names.last(), Some(&"X-Amz-Signature"));
    let bound = "X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-meta-name";
    assert!(parameters.split('&').any(|pair| pair == bound), "{parameters}");

    if let Ok(content_type) = ContentType::parse(&header) {
        let form = Form {
            bucket: &bucket,
            key: &key,
            content_type: &content_type,
            max_size: 9,
            expires: 60,
            mark: None,
            cache_control: None,
        };
        let signed = signer.form(&form, at);
        check_url(&signed.url);
        let policy = signed.fields.iter().find(|(name, _)| *name == "policy").unwrap();
        // Base64, which has nothing to escape in a form.
        assert!(policy.1.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)));
    }
    let policy = public_read(&bucket, &key);
    let again: serde_json::Value = serde_json::from_str(&policy.to_string()).unwrap();
    assert_eq!(again, policy);
    assert_eq!(again["Statement"].as_array().map(Vec::len), Some(1));
}

/// One URL: printable, without what ends one in text or HTML, one `?` at most.
fn check_url(url: &str) {
    assert!(url.bytes().all(|byte| (b'!'..=b'~').contains(&byte)), "{url}");
    assert!(!url.contains(['"', '\'', '<', '>', '\\', '#', '`', '{', '}', '|', '^']), "{url}");
    assert!(url.matches('?').count() <= 1 && url.matches("://").count() == 1, "{url}");
}

/// `attachment; filename="…"`, and perhaps `; filename*=UTF-8''…`; nothing that would be a third parameter or a header.
fn check_disposition(text: &str) {
    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
    let rest = text.strip_prefix("attachment").or_else(|| text.strip_prefix("inline")).unwrap();
    let name = rest.strip_prefix("; filename=\"").unwrap();
    let (name, rest) = name.split_once('"').unwrap();
    assert!(!name.contains(['\\', '/', '%']), "{text}");
    if !rest.is_empty() {
        let exact = rest.strip_prefix("; filename*=UTF-8''").unwrap();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~%".contains(&byte);
        assert!(exact.bytes().all(allowed), "{text}");
    }
}
