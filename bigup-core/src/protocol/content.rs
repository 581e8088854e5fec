//! Parameters and JSON bodies of the endpoint of finished files, `/content/NAME`.

use serde::{Deserialize, Serialize};

/// First component of the path.
pub const PATH: &str = "content";

/// Parameter of a GET of a file: its size and digests in place of its content.
pub const LEAVES: &str = "leaves";

/// Response to a GET of a file with [`LEAVES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavesResponse {
    /// Name of the file.
    pub file_name: String,
    /// Bytes of the file.
    pub file_size: u64,
    /// BLAKE3 of the file. `None`: it is not certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<String>,
    /// Time of the last write, in UTC with nanoseconds: `2030-01-31T12:00:00.123456789Z`.
    pub modified: String,
    /// Time of the last write to the client's file, if that is kept: seconds since 1970, like `1700000000.123456789`.
    /// `modified` is the same then, as far as its form has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_modified: Option<String>,
    /// Bytes of a leaf: 1024·2^k. The last leaf may be shorter. `None`: the server has no digests of leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_size: Option<u64>,
    /// BLAKE3 chaining values of the leaves, in order. They join to `file_digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Vec<String>>,
}

/// A line of the list of finished files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Name of the file.
    pub file_name: String,
    /// Bytes of the file.
    pub file_size: u64,
    /// Time of the last write, in UTC: `2030-01-31T12:00:00Z`.
    pub modified: String,
    /// Time of the last write to the client's file, if that is kept: seconds since 1970, like `1700000000.123456789`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_modified: Option<String>,
    /// BLAKE3 of the file. `None`: it is not certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<String>,
}
