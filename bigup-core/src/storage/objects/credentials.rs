//! The credentials of the store: from a file that only the service can read, or from the environment.
//!
//! They are read for each request, so that new ones count at once. No message contains any of them.

use crate::protocol::name::printable;
use rusty_s3::Credentials;
use std::path::Path;

/// The file's form, for messages.
const FORM: &str = "it must have lines aws_access_key_id = … and aws_secret_access_key = …";

/// Largest file of credentials, in bytes.
const MOST: u64 = 64 << 10;

/// The credentials of now.
///
/// # Errors
/// There are none, or the file cannot be read or has another form.
pub(super) fn read(file: Option<&Path>) -> Result<Credentials, String> {
    match file {
        Some(file) => {
            let shown = printable(&file.to_string_lossy());
            let text = crate::storage::disk::read_small(file, MOST).map_err(|e| format!("s3_credentials_file: {e}"))?;
            let text = String::from_utf8(text).map_err(|_| format!("s3_credentials_file {shown}: it is not UTF-8"))?;
            parse(&text).ok_or_else(|| format!("s3_credentials_file {shown}: {FORM}"))
        }
        None => Credentials::from_env().ok_or_else(|| {
            "there are no credentials: set s3_credentials_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned()
        }),
    }
}

/// The credentials in a file like those of Amazon's programs. Lines of sections and comments count for nothing.
fn parse(text: &str) -> Option<Credentials> {
    let value = |wanted: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(wanted));
        found.next().map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let (key, secret) = (value("aws_access_key_id")?, value("aws_secret_access_key")?);
    Some(match value("aws_session_token") {
        Some(token) => Credentials::new_with_token(key, secret, token),
        None => Credentials::new(key, secret),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_a_file_of_amazons_form() {
        let read = parse("# mine\n[default]\naws_access_key_id = K\nAWS_SECRET_ACCESS_KEY=S=/+\n").unwrap();
        assert_eq!((read.key(), read.secret(), read.token()), ("K", "S=/+", None));
        let read = parse("aws_access_key_id=K\naws_secret_access_key=S\naws_session_token = T\n").unwrap();
        assert_eq!(read.token(), Some("T"));
        for wrong in ["", "aws_access_key_id=K", "aws_access_key_id=K\naws_secret_access_key=\n"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
        let missing = super::read(Some(Path::new("/nowhere/x"))).unwrap_err();
        assert!(missing.contains("/nowhere/x"), "{missing}");
    }
}
