//! What is done without being asked: mergers that died are started again, leftovers are swept, abandoned uploads end.
//!
//! It works on the data folder alone, as any other process could. No request waits for it.

pub mod expiry;
pub mod reconcile;
pub mod sweep;
