//! Finished files by their names over plain HTTP, `/content/NAME`: for curl, browsers, wget, aria2, rclone and scripts.
//!
//! - `download` - a file; `folder` - a folder, as `archive` (in the format of `tar`) or as `index`; `listing` - the list;
//!   `leaves` - digests of a file's parts.
//! - `representation` - responses that have parts of something; `sending` - their bodies; `chunks` - bodies of text.
//!
//! The rules of RFC 9110 for conditions and ranges are here, and known nowhere below.

mod archive;
mod chunks;
pub mod conditions;
mod deletion;
mod download;
mod empty_folder;
mod folder;
mod index;
mod leaves;
mod listing;
mod put;
pub mod ranges;
mod representation;
pub mod routes;
mod sending;
mod tar;
mod words;
