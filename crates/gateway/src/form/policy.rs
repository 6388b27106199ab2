//! A form's permission: the policy its signer wrote, checked against the fields that came.

use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use pg_storage_core::presign::Credentials;
use s3s::dto::Timestamp;
use s3s::post_policy::{PostPolicy, PostPolicyCondition};
use s3s::{S3Error, S3Result, s3_error};
use sha2::Sha256;

use super::Fields;
use crate::front::gate::check_scope;
use crate::receive::MAX_BODY;

/// Fields that need no condition: what proves the policy cannot be in it.
const FREE: [&str; 2] = ["policy", "x-amz-signature"];

/// What a checked policy says of the file.
#[derive(Debug)]
pub struct Signed {
    /// The fewest bytes.
    pub least: u64,
    /// The most bytes.
    pub most: u64,
}

fn denied(reason: &str) -> S3Error {
    s3_error!(AccessDenied, "Invalid according to Policy: {reason}")
}

impl Signed {
    /// Checks signature, expiry and every condition.
    pub fn check(fields: &Fields, bucket: &str, credentials: &Credentials, region: &str) -> S3Result<Self> {
        let field = |name: &str| fields.get(name).ok_or_else(|| s3_error!(AccessDenied, "Access Denied"));
        let (text, signature) = (field("policy")?, field("x-amz-signature")?);
        let (credential, date) = (field("x-amz-credential")?, field("x-amz-date")?);
        if field("x-amz-algorithm")? != "AWS4-HMAC-SHA256" {
            return Err(s3_error!(InvalidArgument, "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
        }
        if fields.get("x-amz-security-token").is_some() {
            return Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."));
        }
        check_scope(credential, region)
            .map_err(|what| s3_error!(InvalidArgument, "The credential {what}"))?;
        let day = credential
            .strip_prefix(credentials.access_key_id.as_str())
            .and_then(|scope| scope.strip_prefix('/')?.split('/').next())
            .ok_or_else(|| {
                s3_error!(InvalidAccessKeyId, "The access key ID you provided does not exist in our records.")
            })?;
        if date.get(..8) != Some(day) {
            return Err(s3_error!(
                SignatureDoesNotMatch,
                "The date of the credential is not that of the form."
            ));
        }
        verify(credentials, day, region, text, signature)?;
        Self::judge(text, fields, bucket)
    }

    fn judge(text: &str, fields: &Fields, bucket: &str) -> S3Result<Self> {
        let policy = PostPolicy::from_base64(text).map_err(|error| {
            s3_error!(
                error,
                InvalidPolicyDocument,
                "The content of the form does not meet the conditions specified in the policy document."
            )
        })?;
        if policy.expiration <= Timestamp::from(SystemTime::now()) {
            return Err(denied("Policy expired."));
        }
        let mut signed = Self { least: 0, most: MAX_BODY };
        let value = |field: &str| if field == "bucket" { Some(bucket) } else { fields.get(field) };
        for condition in &policy.conditions {
            let holds = match condition {
                PostPolicyCondition::Eq { field, value: wanted } => value(field) == Some(wanted.as_str()),
                PostPolicyCondition::StartsWith { field, prefix } => {
                    value(field).is_some_and(|value| value.starts_with(prefix.as_str()))
                }
                PostPolicyCondition::ContentLengthRange { min, max } => {
                    signed = Self { least: signed.least.max(*min), most: signed.most.min(*max) };
                    true
                }
            };
            if !holds {
                return Err(denied("Policy Condition failed."));
            }
        }
        let named = |name: &str| {
            policy.conditions.iter().any(|condition| match condition {
                PostPolicyCondition::Eq { field, .. } | PostPolicyCondition::StartsWith { field, .. } => {
                    field == name
                }
                PostPolicyCondition::ContentLengthRange { .. } => false,
            })
        };
        // Without these a form would be good for every bucket or for every key.
        if let Some(missing) = ["bucket", "key"].into_iter().find(|name| !named(name)) {
            return Err(denied(&format!("Policy has no condition on {missing}")));
        }
        let extra = fields
            .names()
            .find(|name| !FREE.contains(name) && !name.starts_with("x-ignore-") && !named(name));
        match extra {
            Some(name) => Err(denied(&format!("Extra input fields: {name}"))),
            None => Ok(signed),
        }
    }
}

/// The signature of a policy is that of its base64 text under the day's key; compared in constant time.
fn verify(credentials: &Credentials, day: &str, region: &str, text: &str, signature: &str) -> S3Result<()> {
    let refused = || {
        s3_error!(
            SignatureDoesNotMatch,
            "The request signature we calculated does not match the signature you provided."
        )
    };
    let mut key = format!("AWS4{}", credentials.secret_access_key.expose()).into_bytes();
    for part in [day, region, "s3", "aws4_request"] {
        key = mac(&key, part)?.finalize().into_bytes().to_vec();
    }
    let signature = base16ct::lower::decode_vec(signature).map_err(|_| refused())?;
    mac(&key, text)?.verify_slice(&signature).map_err(|_| refused())
}

fn mac(key: &[u8], message: &str) -> S3Result<Hmac<Sha256>> {
    // HMAC takes keys of any length; the error exists for other algorithms.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| s3_error!(error, InternalError))?;
    mac.update(message.as_bytes());
    Ok(mac)
}
