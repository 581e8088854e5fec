//! The place of finished files in an S3-compatible store, as an operator sets it.

use crate::protocol::name::quoted;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Most parts that are sent at once for one upload: more fill no link, and each takes a thread.
pub const MOST_PARTS_AT_ONCE: u64 = 64;

/// A bucket, and the beginning of the keys in it: `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// The bucket.
    pub bucket: String,
    /// The beginning of all keys, without slashes at its ends. Empty: the whole bucket is ours.
    pub prefix: String,
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreUrl, String> {
        let rest = text.strip_prefix("s3://").ok_or_else(|| format!("{} does not begin with s3://", quoted(text)))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_usual = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_usual) {
            return Err(format!(
                "{} is no name of a bucket: it has 3 to 63 letters, digits, dots and dashes",
                quoted(bucket)
            ));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.len() > 512 {
            return Err(format!("the prefix has {} bytes, and more than 512 leave no space for names", prefix.len()));
        }
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !prefix.is_empty() && (!prefix.split('/').all(is_part) || prefix.chars().any(char::is_control)) {
            return Err(format!(
                "the prefix {} has a component that is empty, . or .., or a control character",
                quoted(prefix)
            ));
        }
        Ok(StoreUrl { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// All that is needed to reach the store, but for the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSettings {
    /// Where finished files go.
    pub url: StoreUrl,
    /// URL of the service. `None`: that of Amazon in the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// True: the bucket stands in the path of requests. False: it is a part of the host's name.
    pub path_style: bool,
    /// File with the credentials. `None`: the environment has them.
    pub credentials_file: Option<PathBuf>,
    /// Most parts of one upload that are sent at once; at least 1.
    pub parts_at_once: u64,
}

impl ObjectSettings {
    /// URL of the service.
    pub fn endpoint(&self) -> String {
        let usual = || format!("https://s3.{}.amazonaws.com", self.region);
        self.endpoint.clone().unwrap_or_else(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_bucket_and_a_prefix() {
        for (text, bucket, prefix, shown) in [
            ("s3://files", "files", "", "s3://files"),
            ("s3://files/", "files", "", "s3://files"),
            ("s3://my.files-1/a/b/", "my.files-1", "a/b", "s3://my.files-1/a/b"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((&*url.bucket, &*url.prefix, &*url.to_string()), (bucket, prefix, shown));
        }
        for wrong in
            ["files", "s3://", "s3://ab", "s3://a b c", "s3://abc/x//y", "s3://abc/../y", "s3://abc/a\nb", "http://abc"]
        {
            assert!(wrong.parse::<StoreUrl>().is_err(), "{wrong}");
        }
    }
}
