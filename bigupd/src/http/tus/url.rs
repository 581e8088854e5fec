//! Addresses of uploads: `/files/KEY/NAME`. The key is the secret by which the upload is known; the name is that of its
//! file, so that no table of keys has to be kept.

use crate::refusal::Refusal;
use crate::uploads::append::no_such_upload;
use crate::uploads::create::UploadKey;
use bigup_core::protocol::name::FileName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The path that uploads are created at, without the slash at its end.
pub const PATH: &str = "files";

/// Characters that are encoded in a name. Slashes between its components stay.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The path of an upload.
pub fn path_of(key: &UploadKey, name: &FileName) -> String {
    format!("/{PATH}/{}/{}", key.as_str(), utf8_percent_encode(name.as_str(), ENCODED))
}

/// The upload that a path is of. `None` if it is where uploads are created.
///
/// # Errors
/// It is of no upload.
pub fn parse(path: &str) -> Result<Option<(UploadKey, FileName)>, Refusal> {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(PATH)).ok_or_else(no_such_upload)?;
    if rest.is_empty() || rest == "/" {
        return Ok(None);
    }
    let (key, name) = rest.strip_prefix('/').and_then(|rest| rest.split_once('/')).ok_or_else(no_such_upload)?;
    let name = percent_decode_str(name).decode_utf8().ok().and_then(|name| FileName::new(&name).ok());
    UploadKey::parse(key).zip(name).map(Some).ok_or_else(no_such_upload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_back_to_its_upload() {
        let key = UploadKey::random().unwrap();
        for name in ["a", "a/b c/ü%41.bin", "?#;=&+", "a..b"] {
            let name = FileName::new(name).unwrap();
            let path = path_of(&key, &name);
            assert!(path.is_ascii() && !path.contains(['?', '#', ' ']), "{path}");
            assert_eq!(parse(&path), Ok(Some((key.clone(), name))));
        }
        assert_eq!((parse("/files"), parse("/files/")), (Ok(None), Ok(None)));
        let hex = key.as_str();
        for wrong in [
            "/filesx",
            "/files/x",
            &format!("/files/{hex}"),
            &format!("/files/{hex}/"),
            &format!("/files/{hex}/../x"),
            &format!("/files/{hex}/%2e%2e/x"),
            &format!("/files/{hex}0/x"),
            &format!("/files/{hex}/%ff"),
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
