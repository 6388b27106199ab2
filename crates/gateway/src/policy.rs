//! Bucket policies: read for one question, whether anybody may read an object.
//!
//! Grammar from "Policy grammar" of the IAM reference. Statements this store cannot judge (conditions, denials,
//! negated elements) are refused when the policy is set: to keep them and ignore them would grant too much.

use s3s::{S3Error, S3Result, s3_error};
use serde::Deserialize;

/// A parsed bucket policy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "Version", default)]
    _version: Option<String>,
    #[serde(rename = "Id", default)]
    _id: Option<String>,
    statement: OneOrMany<Statement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid", default)]
    _sid: Option<String>,
    effect: String,
    principal: Principal,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Principal {
    Everybody(String),
    Named(std::collections::BTreeMap<String, OneOrMany<String>>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::Many(items) => items,
            Self::One(item) => std::slice::from_ref(item),
        }
    }
}

/// The elements of a statement that this store does not judge.
const UNJUDGED: [&str; 4] = ["Condition", "NotPrincipal", "NotAction", "NotResource"];

impl Policy {
    /// Parses the policy of a bucket.
    ///
    /// # Errors
    /// `MalformedPolicy` for what S3 refuses, `NotImplemented` for what this store cannot judge.
    pub fn parse(text: &str, bucket: &str) -> S3Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| {
            s3_error!(MalformedPolicy, "Policies must be valid JSON and the first byte must be '{{'")
        })?;
        refuse_unjudged(&value)?;
        let policy: Self = serde_json::from_value(value).map_err(|error| {
            s3_error!(MalformedPolicy, "The policy does not follow the policy grammar: {error}")
        })?;
        for statement in policy.statement.as_slice() {
            statement.check(bucket)?;
        }
        Ok(policy)
    }

    /// Whether the policy grants anything to everybody.
    pub fn is_public(&self) -> bool {
        self.statement.as_slice().iter().any(|statement| statement.principal.is_everybody())
    }

    /// Whether anybody may perform `action` (such as `s3:GetObject`) on the object.
    pub fn allows_everybody(&self, action: &str, bucket: &str, key: &str) -> bool {
        let resource = format!("arn:aws:s3:::{bucket}/{key}");
        self.statement.as_slice().iter().any(|statement| {
            let action = action.to_ascii_lowercase();
            let actions = statement.action.as_slice();
            let resources = statement.resource.as_slice();
            statement.principal.is_everybody()
                && actions
                    .iter()
                    .any(|pattern| matches(pattern.to_ascii_lowercase().as_bytes(), action.as_bytes()))
                && resources.iter().any(|pattern| matches(pattern.as_bytes(), resource.as_bytes()))
        })
    }
}

fn refuse_unjudged(policy: &serde_json::Value) -> S3Result<()> {
    let statements = match policy.get("Statement") {
        Some(serde_json::Value::Array(statements)) => statements.as_slice(),
        Some(statement) => std::slice::from_ref(statement),
        None => &[],
    };
    for statement in statements {
        if let Some(element) = UNJUDGED.into_iter().find(|element| statement.get(element).is_some()) {
            return Err(unjudged(element));
        }
        if statement.get("Effect").is_some_and(|effect| effect == "Deny") {
            return Err(unjudged("Deny"));
        }
    }
    Ok(())
}

fn unjudged(element: &str) -> S3Error {
    s3_error!(NotImplemented, "The local store does not evaluate {element} in a policy.")
}

impl Statement {
    fn check(&self, bucket: &str) -> S3Result<()> {
        if self.effect != "Allow" {
            return Err(s3_error!(MalformedPolicy, "Invalid effect: {}", self.effect));
        }
        if matches!(&self.principal, Principal::Everybody(text) if text != "*") {
            return Err(s3_error!(MalformedPolicy, "Invalid principal in policy"));
        }
        let own = format!("arn:aws:s3:::{bucket}");
        let inside = |resource: &String| {
            resource.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !self.resource.as_slice().iter().all(inside) {
            return Err(s3_error!(MalformedPolicy, "Policy has invalid resource"));
        }
        if !self
            .action
            .as_slice()
            .iter()
            .all(|action| action == "*" || action.to_ascii_lowercase().starts_with("s3:"))
        {
            return Err(s3_error!(MalformedPolicy, "Policy has invalid action"));
        }
        Ok(())
    }
}

impl Principal {
    fn is_everybody(&self) -> bool {
        match self {
            Self::Everybody(text) => text == "*",
            Self::Named(kinds) => kinds
                .iter()
                .any(|(kind, names)| kind == "AWS" && names.as_slice().iter().any(|name| name == "*")),
        }
    }
}

/// Whether a pattern with `*` (any run) and `?` (any one byte) matches the whole text; linear, no backtracking blow-up.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut retry = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at, place));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == text.get(place) => {
                at += 1;
                place += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    at = star + 1;
                    place = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(principal: &str, action: &str, resource: &str) -> String {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{principal},"Action":{action},"Resource":{resource}}}]}}"#
        )
    }

    fn readable(text: &str, key: &str) -> bool {
        Policy::parse(text, "open").unwrap().allows_everybody("s3:GetObject", "open", key)
    }

    #[test]
    fn everybody_may_read_exactly_what_the_statement_names() {
        let text = policy(r#""*""#, r#""s3:GetObject""#, r#""arn:aws:s3:::open/pub/*""#);
        assert!(readable(&text, "pub/a/b"));
        assert!(!readable(&text, "pub"));
        assert!(!readable(&text, "private/pub/a"));
        assert!(readable(&policy(r#"{"AWS":["*"]}"#, r#"["s3:Get*"]"#, r#"["arn:aws:s3:::open/*"]"#), "x"));
    }

    #[test]
    fn a_named_principal_or_another_action_opens_nothing() {
        let all = r#""arn:aws:s3:::open/*""#;
        assert!(!readable(&policy(r#"{"AWS":"arn:aws:iam::1:root"}"#, r#""s3:GetObject""#, all), "x"));
        assert!(!readable(&policy(r#""*""#, r#""s3:PutObject""#, all), "x"));
        assert!(!readable(&policy(r#""*""#, r#""s3:GetObjectAcl""#, all), "x"));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for text in [
            "not json",
            "{}",
            &policy(r#""*""#, r#""s3:GetObject""#, r#""arn:aws:s3:::other/*""#),
            &policy(r#""*""#, r#""s3:GetObject""#, r#""arn:aws:s3:::openwide/*""#),
            &policy(r#""somebody""#, r#""s3:GetObject""#, r#""arn:aws:s3:::open/*""#),
            &policy(r#""*""#, r#""s3:GetObject""#, r#""arn:aws:s3:::open/*""#).replace("Allow", "Deny"),
            &policy(r#""*""#, r#""s3:GetObject""#, r#""arn:aws:s3:::open/*""#)
                .replace("\"Effect\"", r#""Condition":{"Bool":{"aws:SecureTransport":"true"}},"Effect""#),
        ] {
            assert!(Policy::parse(text, "open").is_err(), "{text}");
        }
    }

    #[test]
    fn wildcards_match_as_in_a_policy() {
        assert!(matches(b"a*c?e", b"abbbcde"));
        assert!(!matches(b"a*c?e", b"abbbce"));
        assert!(matches(b"*", b""));
        assert!(!matches(b"?", b""));
    }
}
