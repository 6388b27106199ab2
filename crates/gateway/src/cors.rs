//! Cross-origin resource sharing as "Using cross-origin resource sharing (CORS)" of the S3 user guide has it:
//! the first rule that matches origin, method and headers decides.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{S3Result, s3_error};

const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];
const MAX_RULES: usize = 100;

/// Refuses a configuration that S3 refuses.
pub fn validate(configuration: &CORSConfiguration) -> S3Result<()> {
    let rules = &configuration.cors_rules;
    if rules.is_empty() || rules.len() > MAX_RULES {
        return Err(s3_error!(MalformedXML, "A CORS configuration has 1 to {MAX_RULES} rules."));
    }
    for rule in rules {
        if rule.allowed_methods.is_empty() || rule.allowed_origins.is_empty() {
            return Err(s3_error!(MalformedXML, "A CORS rule needs methods and origins."));
        }
        if let Some(method) = rule.allowed_methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(s3_error!(
                InvalidRequest,
                "Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            ));
        }
        let wild = rule.allowed_origins.iter().chain(rule.allowed_headers.iter().flatten());
        if let Some(pattern) = wild.into_iter().find(|pattern| pattern.matches('*').count() > 1) {
            return Err(s3_error!(InvalidRequest, "\"{pattern}\" can not have more than one wildcard."));
        }
    }
    Ok(())
}

/// A request's cross-origin side.
#[derive(Debug)]
pub struct Crossing<'a> {
    /// `Origin`.
    pub origin: &'a str,
    /// The method, or in a preflight the one asked about.
    pub method: &'a str,
    /// In a preflight the headers asked about, as sent.
    pub headers: &'a str,
}

impl Crossing<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.split(',').map(str::trim).filter(|name| !name.is_empty())
    }

    /// The rule that admits the request, and its pattern for the origin.
    fn rule<'a>(&self, configuration: &'a CORSConfiguration) -> Option<(&'a CORSRule, &'a str)> {
        configuration.cors_rules.iter().find_map(|rule| {
            let pattern = rule.allowed_origins.iter().find(|pattern| matches(pattern, self.origin))?;
            let method = rule.allowed_methods.iter().any(|method| method == self.method);
            let allowed = rule.allowed_headers.as_deref().unwrap_or_default();
            let headers = self.names().all(|name| {
                let name = name.to_ascii_lowercase();
                allowed.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &name))
            });
            (method && headers).then_some((rule, pattern.as_str()))
        })
    }

    /// The answer's CORS headers, or `None` when no rule admits the request.
    pub fn answer(&self, configuration: &CORSConfiguration) -> Option<HeaderMap> {
        let (rule, pattern) = self.rule(configuration)?;
        let mut answer = HeaderMap::new();
        // For the pattern `*` S3 answers `*`, to which no browser sends credentials.
        if pattern == "*" {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            put(&mut answer, ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        put(&mut answer, ACCESS_CONTROL_ALLOW_METHODS, &rule.allowed_methods.join(", "));
        if !self.headers.is_empty() {
            let names: Vec<String> = self.names().map(str::to_ascii_lowercase).collect();
            put(&mut answer, ACCESS_CONTROL_ALLOW_HEADERS, &names.join(", "));
        }
        if let Some(names) = rule.expose_headers.as_ref().filter(|names| !names.is_empty()) {
            put(&mut answer, ACCESS_CONTROL_EXPOSE_HEADERS, &names.join(", "));
        }
        if let Some(seconds) = rule.max_age_seconds {
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
        }
        answer.insert(
            VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
        );
        Some(answer)
    }
}

fn put(answer: &mut HeaderMap, name: HeaderName, value: &str) {
    // A value that is no header value came from a configuration no browser can match.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.insert(name, value);
    }
}

/// Whether a pattern with at most one `*` matches the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> CORSRule {
        let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        CORSRule {
            allowed_origins: own(origins),
            allowed_methods: own(methods),
            allowed_headers: Some(own(headers)),
            expose_headers: Some(own(&["etag"])),
            id: None,
            max_age_seconds: Some(600),
        }
    }

    fn admitted(rules: Vec<CORSRule>, origin: &str, method: &str, headers: &str) -> bool {
        let configuration = CORSConfiguration { cors_rules: rules };
        Crossing { origin, method, headers }.answer(&configuration).is_some()
    }

    #[test]
    fn origin_method_and_every_header_must_match_one_rule() {
        let rules = || {
            vec![
                rule(&["https://app.example.com"], &["PUT"], &["content-type", "x-amz-*"]),
                rule(&["https://*.example.org"], &["GET"], &[]),
            ]
        };
        let app = "https://app.example.com";
        assert!(admitted(rules(), app, "PUT", "Content-Type, X-Amz-Checksum-SHA256"));
        assert!(!admitted(rules(), app, "PUT", "content-type, if-none-match"));
        assert!(!admitted(rules(), app, "GET", ""));
        assert!(!admitted(rules(), "http://app.example.com", "PUT", ""));
        assert!(!admitted(rules(), "https://app.example.com.evil.test", "PUT", ""));
        assert!(!admitted(rules(), "https://APP.example.com", "PUT", ""));
        assert!(admitted(rules(), "https://a.example.org", "GET", ""));
        assert!(!admitted(rules(), "https://example.org", "GET", ""));
        assert!(!admitted(rules(), "https://a.example.org", "GET", "range"));
    }

    #[test]
    fn a_pattern_does_not_overlap_itself() {
        assert!(!matches("ab*ba", "aba"));
        assert!(matches("ab*ba", "abba"));
    }

    #[test]
    fn the_star_is_answered_with_a_star_and_without_credentials() {
        let configuration = CORSConfiguration { cors_rules: vec![rule(&["*"], &["GET"], &[])] };
        let crossing = Crossing { origin: "https://any.example", method: "GET", headers: "" };
        let answer = crossing.answer(&configuration);
        let header = |name| answer.as_ref().and_then(|answer| answer.get(name)).cloned();
        assert_eq!(header(ACCESS_CONTROL_ALLOW_ORIGIN), Some(HeaderValue::from_static("*")));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
    }

    #[test]
    fn what_s3_refuses_is_refused() {
        let refused = |rules| validate(&CORSConfiguration { cors_rules: rules }).is_err();
        assert!(refused(vec![]));
        assert!(refused(vec![rule(&["*"], &["PATCH"], &[])]));
        assert!(refused(vec![rule(&["https://*.*"], &["GET"], &[])]));
        assert!(refused(vec![rule(&[], &["GET"], &[])]));
        assert!(!refused(vec![rule(&["*"], &["GET"], &["*"])]));
    }
}
