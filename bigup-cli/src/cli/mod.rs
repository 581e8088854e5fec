//! The command line: arguments, the commands, and what people and programs get to see.
//!
//! It is the only user of the terminal, of signals and of the process's exit code. Nothing of the library uses it.

pub mod args;
pub mod bar;
pub mod counts;
pub mod descriptors;
pub mod embedded;
pub mod inputs;
pub mod picture;
pub mod print;
pub mod push;
pub mod report;
pub mod signals;
pub mod status;
pub mod verify;
