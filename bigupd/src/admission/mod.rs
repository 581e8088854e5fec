//! Permissions and amounts: tokens, web pages, quotas, limits, and shares of threads.
//!
//! It decides before anything is changed. It reads the data folder to count, and changes nothing of uploads.

pub mod access;
pub mod amount;
pub mod grants;
pub mod origins;
pub mod quota;
pub mod thread_shares;
pub mod tokens;
pub mod turns;
pub mod upload_count;
