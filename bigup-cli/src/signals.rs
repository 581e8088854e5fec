//! SIGINT and SIGTERM.

use crossbeam_channel::Receiver;
use std::io;

/// A channel on which the first signal arrives. A second one ends the program on the spot, for the case that the first
/// is stuck behind a pipe that nobody reads.
///
/// # Errors
/// The system does not let us.
#[cfg(unix)]
pub fn watch() -> io::Result<Receiver<i32>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal must find `seen` false.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&seen))?;
        signal_hook::flag::register(signal, Arc::clone(&seen))?;
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let (tell, told) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // Full: the first one is being dealt with.
            let _ = tell.try_send(signal);
        }
    });
    Ok(told)
}

/// A channel on which nothing arrives: elsewhere the system ends the program, which loses nothing.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn watch() -> io::Result<Receiver<i32>> {
    Ok(crossbeam_channel::never())
}
