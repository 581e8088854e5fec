//! Permissions and amounts: tokens, web pages, quotas, limits, and shares of threads.
//!
//! It uses peers and certificates of [`net`](crate::net), and reads the data folder to count. It decides before anything
//! is changed: changes of uploads, and routes, do not come in here.

pub mod access;
pub mod amount;
pub mod begun_uploads;
pub mod grants;
pub mod origins;
pub mod quota;
pub mod spool_limit;
pub mod thread_shares;
pub mod tokens;
pub mod turns;
pub mod upload_count;
