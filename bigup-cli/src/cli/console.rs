//! The terminal on standard error: whether progress can be drawn there.

/// True if the terminal understands the sequences by which lines are drawn anew (ECMA-48). Terminals do.
#[cfg(not(windows))]
pub fn can_draw() -> bool {
    true
}

/// True if the console understands the sequences by which lines are drawn anew (ECMA-48), which it is asked for here.
/// Consoles older than Windows 10 do not.
#[cfg(windows)]
pub fn can_draw() -> bool {
    match winapi_util::console::Console::stderr() {
        Ok(mut console) => console.set_virtual_terminal_processing(true).is_ok(),
        // A terminal that is no console, like that of MSYS.
        Err(_) => true,
    }
}
