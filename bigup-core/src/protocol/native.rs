//! Parameters and JSON bodies of the native endpoint, `/big_file_upload`.
//!
//! The names and fields of the first version are unchanged; all others are optional. For a client the response is
//! informational, except for `status`, `is_uploaded`, the held slices and the digests.

use crate::protocol::digest::Digest;
use crate::protocol::ranges::SliceRanges;
use serde::{Deserialize, Serialize};

/// Header by which a client says that no web page sent a request: a page cannot send a header whose name begins with
/// `Sec-` (Fetch Standard, forbidden request-header). Its value names the client.
pub const CLIENT_HEADER: &str = "sec-bigup-client";

/// Path of the endpoint, below the server's root.
pub const PATH: &str = "big_file_upload";

/// Most slices whose digests a single response carries.
pub const MAX_DIGESTS: u64 = 4096;

/// Most bytes of a slice that is told to be zeroes: the server digests as many for a request without a body.
pub const MAX_ZEROES: u64 = 64 << 20;

/// Most files of a bundle: a request that brings several small files, each whole.
pub const MAX_BUNDLE: u64 = 1000;

/// Largest file of a bundle, in bytes: a larger one gains little by sharing a request.
pub const MAX_BUNDLED_FILE: u64 = 64 << 10;

/// Longest line in front of a file of a bundle, in bytes: the longest name fits, with all parameters.
pub const MAX_BUNDLE_LINE: usize = 16 << 10;

/// Longest `wait`, in seconds: below the 60 s after which common proxies give a silent request up.
pub const MAX_WAIT_SECS: u64 = 50;

/// Names of the query parameters. Numbers are decimal without sign; a switch is on when its value is `1`.
pub mod param {
    /// Name of the file, relative to `files/`.
    pub const FILE_NAME: &str = "file_name";
    /// GET: number of slices. Needed unless `slice_size` is given.
    pub const SLICE_NUM: &str = "slice_num";
    /// GET: bytes of a slice that the client prefers; an upload that has begun keeps its own size, which the response
    /// tells. POST: bytes of this slice, the length of the body.
    pub const SLICE_SIZE: &str = "slice_size";
    /// GET, switch: cut the upload anew by `slice_size`, into several slices, if nothing of it is held yet.
    pub const RECUT: &str = "recut";
    /// GET with `recut`, switch: the held slices of the upload are dropped first.
    pub const DISCARD: &str = "discard";
    /// POST: where the slice begins in the file, in bytes: refused where the upload is cut in another way.
    pub const OFFSET: &str = "offset";
    /// Bytes of the file; absent while the client does not know.
    pub const FILE_SIZE: &str = "file_size";
    /// POST: which slice, from 0.
    pub const SLICE_ID: &str = "slice_id";
    /// POST: the slice's digest, as [`crate::protocol::digest::SliceDigest`] shows it.
    pub const SLICE_DIGEST: &str = "slice_digest";
    /// POST, switch: all bytes of the slice are zeroes, at most [`super::MAX_ZEROES`], and there is no body.
    pub const ZEROES: &str = "zeroes";
    /// POST: the request is a bundle of so many files, at most [`super::MAX_BUNDLE`]. It has no other parameter. In its body
    /// each file is a line, the query of a POST that sends that file in one request, and its bytes.
    pub const BUNDLE: &str = "bundle";
    /// Identity of the client's source, opaque to the server: two equal values stand for the same bytes. A client that
    /// begins several slices must send it, or `file_digest`, unless it sends no parameters but those that the oldest
    /// client knows.
    pub const SOURCE: &str = "source";
    /// The BLAKE3 digest that the whole file must have.
    pub const FILE_DIGEST: &str = "file_digest";
    /// Switch: a finished file of this name and other content is replaced.
    pub const REPLACE: &str = "replace";
    /// Time of the last write to the client's file, as [`crate::protocol::kept::FileTime`] reads it. The finished file
    /// has it too. A finished file that is there already keeps its time.
    pub const MODIFIED: &str = "modified";
    /// Permission bits of the client's file, in octal, at most 777. The finished file has those that the server permits.
    pub const MODE: &str = "mode";
    /// GET, switch: held slices as `slice_ranges_uploaded` instead of `slice_ids_uploaded`.
    pub const RANGES: &str = "ranges";
    /// GET: seconds to wait for the file to be finished before the response, at most [`super::MAX_WAIT_SECS`]. While
    /// slices are missing there is nothing to wait for, and the response comes at once.
    pub const WAIT: &str = "wait";
    /// GET, switch: only read; begin nothing, start no merger. Without `file_name`: all unfinished uploads. With the
    /// `source` of the upload it shows that its client is alive.
    pub const PEEK: &str = "peek";
    /// GET with `peek`, switch: the client named by `source`, the upload's owner, has given up. Another client can go
    /// on with the upload at once.
    pub const LEAVE: &str = "leave";
    /// GET with `peek`, switch: the rights of the sender, in place of uploads. Every client may ask.
    pub const RIGHTS: &str = "rights";
    /// GET with `peek`: `A-B`, the digests of the held ones among these slices, at most [`super::MAX_DIGESTS`].
    pub const DIGESTS: &str = "digests";
}

/// Longest `source`, in characters; they are visible ASCII.
pub const MAX_SOURCE_LEN: usize = 128;

/// Response to a GET: the part of an upload that the server holds, or that the file is finished.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UploadResponse {
    /// Name of the file.
    pub file_name: String,
    /// HTTP status, 200.
    pub status: u16,
    /// 1: a file of this name stands in `files/`, whole, checked and synced; `same_source` and `file_digest` tell if it
    /// is the client's. 0: not yet.
    pub is_uploaded: u8,
    /// Ids of the held slices; all of them once the file is finished. Absent where ranges were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_ids_uploaded: Option<Vec<u64>>,
    /// The same as runs `[first, last]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_ranges_uploaded: Option<SliceRanges>,
    /// Number of slices, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_num: Option<u64>,
    /// Bytes of a slice, where known. Binding for every client that goes on with the upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_size: Option<u64>,
    /// Bytes of the file, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// The frontier: slices below it are in the merged file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curr_merge_slice_id: Option<u64>,
    /// Held slices can be of other content than the client's source. Compare their digests before skipping them, and
    /// end by a GET with `file_digest`; without that the file is not published.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compare: bool,
    /// Slices of zeroes may be sent without their bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zeroes: bool,
    /// `is_uploaded` is 1 and the finished file came from the very `source` that the asker named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_source: bool,
    /// Digest of the finished file, where the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<String>,
    /// Digests of the slices asked for, in order; null for those that are not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<Vec<Option<String>>>,
    /// The reason the merger stopped last, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// An operator lets the upload rest: no slice of it is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// Answer to a POST: the slice is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SliceResponse {
    /// Name of the file.
    pub file_name: String,
    /// The slice.
    pub slice_id: u64,
    /// HTTP status, 200.
    pub status: u16,
    /// 1: with this slice the file was finished before the response.
    pub is_uploaded: u8,
    /// Digest of the finished file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<String>,
    /// The server had this slice already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The slice was a whole file, and several such files may come in one request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bundles: bool,
}

/// Answer to a POST of a bundle: how each file ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BundleResponse {
    /// HTTP status, 200, whatever became of each file.
    pub status: u16,
    /// The files, in the order of the request.
    pub files: Vec<BundledResponse>,
}

/// How a file of a bundle ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BundledResponse {
    /// It is stored.
    Stored(SliceResponse),
    /// It is refused; the others are not.
    Refused(ErrorResponse),
}

/// Answer to a GET with `peek` and no name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListResponse {
    /// HTTP status, 200.
    pub status: u16,
    /// Unfinished uploads, by name.
    pub uploads: Vec<UploadStatus>,
}

/// Answer to a GET with `peek` and `rights`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RightsResponse {
    /// HTTP status, 200.
    pub status: u16,
    /// The permissions of the sender, such as `push` and `read`.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// The folder that all names of the sender lie in, with a `/` at its end; empty: all names.
    #[serde(default)]
    pub prefix: String,
}

/// Answer to a DELETE: the upload is cancelled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CancelResponse {
    /// Name of the file.
    pub file_name: String,
    /// HTTP status, 200.
    pub status: u16,
    /// Bytes that the upload held.
    pub bytes_held: u64,
}

/// An unfinished upload, as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// Name of the file.
    pub file_name: String,
    /// Number of slices, where known.
    pub slice_num: Option<u64>,
    /// Bytes of a slice, where known.
    pub slice_size: Option<u64>,
    /// Bytes of the file, where known.
    pub file_size: Option<u64>,
    /// Number of slices held.
    pub slices_held: u64,
    /// The frontier.
    pub curr_merge_slice_id: u64,
    /// 1 while a merger is at work.
    pub merge_slice_process_exist: u8,
    /// Seconds since the last byte arrived.
    pub idle_seconds: u64,
    /// The reason the merger stopped last, where it did.
    pub last_error: Option<String>,
    /// An operator lets it rest: no slice of it is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// Answer to a refused request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// HTTP status.
    pub status: u16,
    /// The fault, with both numbers, and the remedy; for people.
    pub message: String,
    /// The fault, for programs.
    pub error: ErrorCode,
}

/// The fault, for programs. Codes stay as they are once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: a parameter is missing or makes no sense.
    BadRequest,
    /// 400: the file name cannot be used.
    BadName,
    /// 400: the body does not match its length or digest; send it again.
    Damaged,
    /// 401: a token is needed, and no valid token was sent.
    Unauthorized,
    /// 403: this token does not permit the request, a hook of the server refuses the upload, or a foreign web page sent
    /// the request.
    Forbidden,
    /// 404: no such path.
    NotFound,
    /// 404: no such upload; begin it by a GET.
    NoUpload,
    /// 405: there is no such method; Allow tells those there are.
    MethodNotAllowed,
    /// 408: the body came too slowly.
    Timeout,
    /// 409: numbers or content contradict the upload's.
    Conflict,
    /// 409: another push is at work on this name; ask again later.
    Busy,
    /// 409: a finished file of this name exists, and its content differs or cannot be compared.
    Exists,
    /// 410: the upload was cancelled on the server, and cannot be begun anew for a moment.
    Cancelled,
    /// 412: a condition of the request (If-Match and the like) does not hold for the finished file.
    PreconditionFailed,
    /// 413: over a limit.
    TooLarge,
    /// 415: the body is coded in a way that is not spoken here.
    Unsupported,
    /// 416: the finished file has no byte of the ranges that were asked for.
    RangeNotSatisfiable,
    /// 429: the client, address or token is over a limit; retry later.
    TooMany,
    /// 503: more than the server takes at once; ask again later.
    Overloaded,
    /// 503: the upload is paused on the server; ask again later.
    Paused,
    /// 507: not enough disk space.
    NoSpace,
    /// 500: something else went wrong on the server.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl UploadResponse {
    /// The held slices, whichever way they were sent; nothing where they make no sense.
    pub fn held(&self) -> SliceRanges {
        match (&self.slice_ranges_uploaded, &self.slice_ids_uploaded) {
            (Some(ranges), _) if ranges.is_valid() => ranges.clone(),
            (_, Some(ids)) => SliceRanges::with_frontier(0, ids.clone()),
            _ => SliceRanges::default(),
        }
    }

    /// The digest of the finished file, if the response has a readable one.
    pub fn digest(&self) -> Option<Digest> {
        self.file_digest.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_error_code_is_read() {
        let text = r#"{"status":418,"message":"no coffee","error":"teapot"}"#;
        assert_eq!(serde_json::from_str::<ErrorResponse>(text).unwrap().error, ErrorCode::Unknown);
    }

    #[test]
    fn the_seeds_fields_are_always_there() {
        let answer = UploadResponse { slice_ids_uploaded: Some(vec![]), ..UploadResponse::default() };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(text, r#"{"file_name":"","status":0,"is_uploaded":0,"slice_ids_uploaded":[]}"#);
    }
}
