//! The number of connections and files that can be open at a time, so that a push does less at a time rather than fail.

/// Descriptors that are not for connections and files of the push: the standard ones, and what the system's library
/// opens to look names up.
#[cfg(target_os = "linux")]
const OTHERS: usize = 24;

/// As many as a push may want at most, with all senders that can be asked for.
const ENOUGH: usize = 1024;

/// The number of connections and files of the push that can be open at a time; two at least. The limit is raised where
/// the system lets us.
#[cfg(target_os = "linux")]
pub fn available() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return ENOUGH };
    let wanted = hard.min(ENOUGH as u64);
    let is_raised = soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
    let limit = if is_raised { wanted } else { soft };
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(OTHERS).max(2)
}

/// The number of connections and files of the push that can be open at a time; elsewhere as many as it wants.
#[cfg(not(target_os = "linux"))]
pub fn available() -> usize {
    ENOUGH
}
