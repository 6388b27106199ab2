//! Signed forms: an upload by HTML form (POST policy), whose length is a range instead of a number.
//!
//! The rules are those of AWS's "Browser-Based Uploads Using POST (AWS Signature Version 4)".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Signer, Timestamp};
use crate::content_type::ContentType;

/// One upload that a form is to permit.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// The physical bucket.
    pub bucket: &'a str,
    /// The object's key, exactly.
    pub key: &'a str,
    /// The content type, exactly.
    pub content_type: &'a ContentType,
    /// The most bytes of the file; the fewest are one.
    pub max_size: u64,
    /// How long the form lives, in seconds; see [`crate::lifetime::check_expiry`].
    pub expires: u32,
    /// The upload's id, which the object then carries as metadata.
    pub mark: Option<&'a Uuid>,
    /// What the object then tells caches, exactly.
    pub cache_control: Option<&'a str>,
}

/// What the client posts: the fields in this order as `multipart/form-data`, then the file in a field `file`.
/// Whoever has it may upload, so it has no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedForm {
    /// Where to post to.
    pub url: String,
    /// Names and values of the form's fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Signer {
    /// The form that permits `form` for `form.expires` seconds from `at`.
    ///
    /// Every field is fixed by the signature; the store refuses another key, another type and any length outside of the
    /// range. A form binds no checksum.
    pub fn form(&mut self, form: &Form<'_>, at: Timestamp) -> SignedForm {
        let mut fields = vec![
            ("key", form.key.to_owned()),
            ("Content-Type", form.content_type.as_str().to_owned()),
            ("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("x-amz-credential", self.day_key(at).credential.clone()),
            ("x-amz-date", at.amz_date().to_owned()),
        ];
        if let Some(cache_control) = form.cache_control {
            fields.push(("Cache-Control", cache_control.to_owned()));
        }
        if let Some(mark) = form.mark {
            fields.push(("x-amz-meta-upload", mark.to_string()));
        }
        if let Some(token) = self.session_token() {
            fields.push(("x-amz-security-token", token.to_owned()));
        }
        let mut conditions: Vec<Value> =
            fields.iter().map(|(name, value)| json!(["eq", format!("${name}"), value])).collect();
        conditions.push(json!({ "bucket": form.bucket }));
        conditions.push(json!(["content-length-range", 1, form.max_size]));
        let policy = json!({ "expiration": at.expiration(form.expires), "conditions": conditions });
        let policy = STANDARD.encode(policy.to_string());
        let mut signature = [0; 64];
        let signature = self.day_key(at).sign(&policy, &mut signature).to_owned();
        fields.push(("policy", policy));
        fields.push(("x-amz-signature", signature));

        let (mut host, mut path) = (String::new(), String::new());
        self.target().locate(form.bucket, None, &mut host, &mut path);
        SignedForm { url: format!("{}://{host}{path}/", self.target().scheme()), fields }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::presign::{Credentials, Secret, Target};

    fn signer(token: Option<&str>) -> Signer {
        let target = Target::new(&Endpoint::parse("https://s3.amazonaws.com").unwrap(), "us-east-1", false);
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: token.map(Secret::new),
        };
        Signer::new(target, credentials)
    }

    /// 2015-12-29 00:00 UTC, the day of AWS's example.
    const DAY: i64 = 1_451_347_200;

    #[test]
    fn aws_example_of_a_signed_policy() {
        // AWS, "Example: Browser-Based Upload using HTTP POST (Using AWS Signature Version 4)"; its lines end in CRLF.
        let policy = [
            r#"{ "expiration": "2015-12-30T12:00:00.000Z","#,
            r#"  "conditions": ["#,
            r#"    {"bucket": "sigv4examplebucket"},"#,
            r#"    ["starts-with", "$key", "user/user1/"],"#,
            r#"    {"acl": "public-read"},"#,
            r#"    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},"#,
            r#"    ["starts-with", "$Content-Type", "image/"],"#,
            r#"    {"x-amz-meta-uuid": "14365123651274"},"#,
            r#"    {"x-amz-server-side-encryption": "AES256"},"#,
            r#"    ["starts-with", "$x-amz-meta-tag", ""],"#,
            "",
            r#"    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},"#,
            r#"    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},"#,
            r#"    {"x-amz-date": "20151229T000000Z" }"#,
            "  ]",
            "}",
        ]
        .join("\r\n");
        let mut signature = [0; 64];
        assert_eq!(
            signer(None).day_key(Timestamp::from_unix(DAY)).sign(&STANDARD.encode(policy), &mut signature),
            "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
        );
    }

    #[test]
    fn every_field_is_in_the_policy() {
        let content_type = ContentType::parse("image/png").unwrap();
        let form = Form {
            bucket: "b-1",
            key: "staging/acme/1",
            content_type: &content_type,
            max_size: 10,
            expires: 900,
            mark: Some(&Uuid::from_u128(7)),
            cache_control: Some("public"),
        };
        let signed = signer(Some("token")).form(&form, Timestamp::from_unix(DAY));
        assert_eq!(signed.url, "https://b-1.s3.amazonaws.com/");
        let field = |wanted: &str| {
            signed.fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str()).unwrap()
        };
        let policy: Value = serde_json::from_slice(&STANDARD.decode(field("policy")).unwrap()).unwrap();
        assert_eq!(policy["expiration"], "2015-12-29T00:15:00Z");
        let conditions = policy["conditions"].as_array().unwrap();
        for (name, value) in
            signed.fields.iter().filter(|(name, _)| !matches!(*name, "policy" | "x-amz-signature"))
        {
            assert!(conditions.contains(&json!(["eq", format!("${name}"), value])), "{name}");
        }
        assert!(conditions.contains(&json!({ "bucket": "b-1" })));
        assert!(conditions.contains(&json!(["content-length-range", 1, 10])));
        assert_eq!(field("x-amz-security-token"), "token");
        assert_eq!(field("x-amz-meta-upload"), "00000000-0000-0000-0000-000000000007");
        assert_eq!(field("x-amz-credential"), "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request");
        let mut signature = [0; 64];
        let expected =
            signer(None).day_key(Timestamp::from_unix(DAY)).sign(field("policy"), &mut signature).to_owned();
        assert_eq!(field("x-amz-signature"), expected);
    }
}
