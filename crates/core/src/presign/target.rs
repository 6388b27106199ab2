//! Where URLs point: an endpoint, its region, and where in the URL the bucket stands.

use super::encode::path;
use crate::endpoint::Endpoint;
use crate::physical::check_bucket_name;

/// The store as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    endpoint: Endpoint,
    region: String,
    path_style: bool,
}

impl Target {
    /// URLs at `endpoint`, signed for `region`.
    ///
    /// With `path_style` the bucket is the first segment of the path; without it, the bucket precedes the host
    /// (virtual-host style), as AWS prefers. Even then the bucket goes into the path where a host name cannot hold it, as
    /// in AWS's own SDKs: when the host is an IP address, when the bucket is not a legal bucket name, and over https when
    /// it has dots, which no wildcard certificate covers.
    pub fn new(endpoint: &Endpoint, region: &str, path_style: bool) -> Self {
        Self { endpoint: endpoint.clone(), region: region.to_owned(), path_style }
    }

    /// The region that signatures are made for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// `https` or `http`.
    pub(super) fn scheme(&self) -> &'static str {
        self.endpoint.scheme()
    }

    fn bucket_in_path(&self, bucket: &str) -> bool {
        self.path_style
            || self.endpoint.is_ip_address()
            || (bucket.contains('.') && !self.endpoint.is_plain_http())
            || check_bucket_name(bucket).is_err()
    }

    /// Appends the host, and the path up to and including the key; without a key, up to the bucket.
    pub(super) fn locate(&self, bucket: &str, key: Option<&str>, host: &mut String, url_path: &mut String) {
        let in_path = self.bucket_in_path(bucket);
        if !in_path {
            host.push_str(bucket);
            host.push('.');
        }
        host.push_str(self.endpoint.authority());
        url_path.push_str(self.endpoint.base_path());
        if in_path {
            url_path.push('/');
            url_path.extend(path(bucket));
        }
        if let Some(key) = key {
            url_path.push('/');
            url_path.extend(path(key));
        }
    }
}

/// The unsigned URL of an object in a public bucket, in the same spelling as a signed one.
pub fn plain_url(target: &Target, bucket: &str, key: &str) -> String {
    let (mut host, mut url_path) = (String::new(), String::new());
    target.locate(bucket, Some(key), &mut host, &mut url_path);
    format!("{}://{host}{url_path}", target.scheme())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn url(endpoint: &str, path_style: bool, bucket: &str) -> String {
        plain_url(&Target::new(&Endpoint::parse(endpoint).unwrap(), "r", path_style), bucket, "a b/c")
    }

    #[test]
    fn path_style() {
        assert_eq!(url("https://h", true, "bucket"), "https://h/bucket/a%20b/c");
        assert_eq!(url("http://h:9000/base/", true, "bucket"), "http://h:9000/base/bucket/a%20b/c");
        assert_eq!(url("http://[::1]:9000", true, "bucket"), "http://[::1]:9000/bucket/a%20b/c");
    }

    #[test]
    fn virtual_host_style() {
        assert_eq!(url("https://h", false, "bucket"), "https://bucket.h/a%20b/c");
        assert_eq!(url("http://h:9000/base", false, "bucket"), "http://bucket.h:9000/base/a%20b/c");
        assert_eq!(url("http://h", false, "my.bucket"), "http://my.bucket.h/a%20b/c");
    }

    #[test]
    fn buckets_that_no_host_can_hold_stay_in_the_path() {
        assert_eq!(url("https://h", false, "my.bucket"), "https://h/my.bucket/a%20b/c");
        assert_eq!(url("http://127.0.0.1:9000", false, "bucket"), "http://127.0.0.1:9000/bucket/a%20b/c");
        assert_eq!(url("https://[::1]", false, "bucket"), "https://[::1]/bucket/a%20b/c");
        assert_eq!(url("https://h", false, "My_Bucket"), "https://h/My_Bucket/a%20b/c");
        assert_eq!(url("https://h", false, "evil.com/"), "https://h/evil.com//a%20b/c");
    }
}
