//! Messages to systemd (sd_notify(3)). Where it does not ask for them, nothing is sent.

/// The service works; this is what it is doing.
#[cfg(target_os = "linux")]
pub fn ready(status: &str) {
    use sd_notify::NotifyState;
    // A manager that does not listen is not waited for.
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]) {
        log::debug!("cannot tell systemd {status:?}: {error}");
    }
}

/// There is no systemd.
#[cfg(not(target_os = "linux"))]
pub fn ready(_status: &str) {}
