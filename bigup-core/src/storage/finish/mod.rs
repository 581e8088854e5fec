//! The ends of an upload, and the way back: publication, a file of a single request, cancellation, and what is left to be told.
//!
//! It uses all other folders of [`storage`](crate::storage), and none of them uses it.

pub mod cancel;
pub mod completion;
pub mod publish;
pub mod single_request;
pub mod unpublish;
