//! SIGINT and SIGTERM; on Windows Ctrl-C, Ctrl-Break and the end of the console.

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

/// Exit code of a program that Ctrl-C ended (STATUS_CONTROL_C_EXIT in ntstatus.h): `cmd` then asks whether to end its
/// batch file too.
#[cfg(windows)]
const CONTROL_C_EXIT: i32 = 0xC000_013A_u32.cast_signed();

/// A channel on which Ctrl-C arrives. A second one ends the program on the spot.
///
/// # Errors
/// The system does not let us.
#[cfg(windows)]
pub fn watch() -> io::Result<Receiver<i32>> {
    use std::sync::atomic::{AtomicBool, Ordering};

    let (tell, told) = crossbeam_channel::bounded(1);
    let seen = AtomicBool::new(false);
    let handler = move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(CONTROL_C_EXIT);
        }
        // Nobody takes it where the program is ending anyway.
        let _ = tell.try_send(CONTROL_C_EXIT);
    };
    ctrlc::set_handler(handler).map_err(io::Error::other)?;
    Ok(told)
}

/// Ends the program with the exit code of `signal`, which is larger than an [`ExitCode`] can be.
#[cfg(windows)]
pub fn die_by(signal: i32) -> ExitCode {
    std::process::exit(signal)
}
