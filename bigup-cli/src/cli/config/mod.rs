//! Settings that stand in a file in place of the command line: of named servers, and of all.
//!
//! - `file` - the file: its place, its sections, a change of it; `secret` - files that only their owner reads.
//! - `merge` - the settings of the file beside flags and environment.
//!
//! The file has the options of the commands by their names. No list of settings comes in here: the command line has it.

pub mod file;
pub mod merge;
pub mod secret;
