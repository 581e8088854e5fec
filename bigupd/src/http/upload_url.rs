//! Addresses of uploads: `/files/KEY/NAME`. The key is the secret by which the upload is known; the name is that of its
//! file, so that no table of keys has to be kept.

use crate::admission::access::Access;
use crate::admission::origins::SharedHeaders;
use crate::net::peer::Peer;
use crate::refusal::Refusal;
use crate::uploads::append::AppendRequest;
use crate::uploads::create::UploadKey;
use crate::uploads::refusals::no_such_upload;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::spool::UploadId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Longest address that is searched for an upload, in bytes: the longest name, percent-encoded, and as much before it.
const MAX_URL: usize = 12 << 10;

/// The path that uploads are created at, without the slash at its end.
pub const PATH: &str = "files";

/// The methods that there are.
pub const METHODS: &str = "POST, HEAD, GET, PATCH, DELETE, OPTIONS";

/// The header fields that web pages need of the protocols there.
pub const SHARED_HEADERS: SharedHeaders = SharedHeaders {
    request: "authorization, content-digest, content-disposition, content-type, repr-digest, tus-resumable, upload-checksum, \
              upload-complete, upload-concat, upload-defer-length, upload-draft-interop-version, upload-length, \
              upload-metadata, upload-offset, want-repr-digest, x-http-method-override, x-request-id, x-requested-with",
    response: "location, repr-digest, retry-after, tus-checksum-algorithm, tus-extension, tus-max-size, tus-resumable, \
               tus-version, upload-complete, upload-concat, upload-defer-length, upload-expires, upload-length, \
               upload-limit, upload-metadata, upload-offset, www-authenticate",
};

/// An upload that a request names, and its sender.
#[derive(Clone, Debug)]
pub struct Named {
    /// The sender.
    pub by: Access,
    /// The upload's secret.
    pub key: UploadKey,
    /// Name of its file.
    pub name: FileName,
}

impl Named {
    /// The upload's identity.
    pub fn id(&self) -> UploadId {
        UploadId::of_name(&self.name)
    }

    /// A request to append at `offset`, from `peer`. `file_size`, in bytes, is told by it; `None`: it is not. The file is
    /// whole once that many bytes are held.
    pub fn append_request(&self, peer: Option<Peer>, offset: u64, file_size: Option<u64>) -> AppendRequest {
        AppendRequest {
            by: self.by.clone(),
            peer,
            id: self.id(),
            name: self.name.clone(),
            source: self.key.source(),
            offset,
            file_size,
            len: None,
            awaits_end: false,
        }
    }
}

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
    let key = UploadKey::parse(key).ok_or_else(no_such_upload)?;
    let name = percent_decode_str(name).decode_utf8().ok().and_then(|name| FileName::new(&name).ok());
    name.map(|name| Some((key, name))).ok_or_else(no_such_upload)
}

/// The upload that an address is of, absolute or not: a proxy may have put more before its path, and a query behind it.
/// `None` if it is of no upload, or too long to be one.
pub fn find(url: &str) -> Option<(UploadKey, FileName)> {
    if url.len() > MAX_URL {
        return None;
    }
    // Both are encoded in names.
    let url = url.split(['?', '#']).next()?;
    let starts = url.match_indices("/files/").map(|(start, _)| start);
    starts.filter_map(|start| parse(&url[start..]).ok().flatten()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_found_in_an_address() {
        let (key, name) = (UploadKey::random().unwrap(), FileName::new("files/a").unwrap());
        let path = path_of(&key, &name);
        for before in ["", "https://h.example", "https://h.example:1/up", "/files/x"] {
            assert_eq!(find(&format!("{before}{path}")), Some((key.clone(), name.clone())), "{before}");
            assert_eq!(find(&format!("{before}{path}?at=one")), Some((key.clone(), name.clone())), "{before}");
        }
        for wrong in ["", "/files/", "a", &path[1..], &format!("{}{path}", "/files/".repeat(MAX_URL / 7))] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
    }

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
