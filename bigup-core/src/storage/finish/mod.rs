//! The ends of an upload, and the way back: publication, a file of a single request, cancellation, and completion
//! records.
//!
//! It uses all other folders of [`storage`](crate::storage), and no other folder uses it. Hooks and merging do not
//! come in here: they call it.

pub mod cancel;
pub mod completion;
pub mod object_parts;
pub mod publish;
pub mod single_request;
pub mod unpublish;
