//! Finished files by their names over plain HTTP, `/content/NAME`: for curl, browsers, wget, aria2 and scripts.
//!
//! The rules of RFC 9110 for conditions and ranges are here, and known nowhere below.

pub mod conditions;
mod deletion;
mod download;
mod listing;
mod put;
pub mod ranges;
pub mod routes;
mod sending;
mod words;
