//! SIGINT and SIGTERM.

use crossbeam_channel::Receiver;
use std::io;
use std::process::ExitCode;

/// A channel on which the first signal arrives. A second one ends the program on the spot, as if nobody watched, for
/// the case that the first is stuck behind a pipe that nobody reads.
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
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&seen))?;
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

/// Ends the program by `signal`, as if nobody had watched for it: a shell whose command dies by SIGINT ends its loop or
/// script, and goes on after any exit code (bash(1), "SIGNALS").
#[cfg(unix)]
pub fn die_by(signal: i32) -> ExitCode {
    // It comes back only where the system refuses.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    ExitCode::FAILURE
}

/// Ends the program, which no signal interrupted.
#[cfg(not(unix))]
pub fn die_by(_: i32) -> ExitCode {
    ExitCode::FAILURE
}

/// A channel on which nothing arrives: elsewhere the system ends the program, which loses nothing.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn watch() -> io::Result<Receiver<i32>> {
    Ok(crossbeam_channel::never())
}
