//! Lines for people and programs on standard output and standard error.

use bigup_core::protocol::name::{printable, printable_json};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Write, stderr, stdout};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Why standard output could not be written, where it could not.
static OUTPUT_FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// The file that gets all lines besides. `None`: there is none.
static LOG_FILE: Mutex<Option<File>> = Mutex::new(None);

/// Writes all lines about files to the end of the file `path`, too.
///
/// # Errors
/// It cannot be opened.
pub fn log_to(path: &Path) -> io::Result<()> {
    let file = File::options().append(true).create(true).open(path)?;
    *LOG_FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Writes a line to the log file, where there is one, with the time before it.
pub fn log_line(line: &str) {
    if let Some(file) = LOG_FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        // In one write, so that lines of several programs stay whole.
        if let Err(error) = file.write_all(format!("{time} {}\n", printable(line)).as_bytes()) {
            note_failure(error);
        }
    }
}

/// Prints a line of results, in printable form.
pub fn print_line(line: &str) {
    write_out(&printable(line));
}

/// Prints a line for programs.
pub fn print_json(value: &Value) {
    write_out(&json_line(value));
}

/// Writes a line to standard output; the first error is kept for [`output_arrived`].
fn write_out(line: &str) {
    if let Err(error) = writeln!(stdout().lock(), "{line}") {
        note_failure(error);
    }
}

/// Prints bytes as they are.
pub fn print_raw(bytes: &[u8]) {
    if let Err(error) = stdout().lock().write_all(bytes) {
        note_failure(error);
    }
}

fn note_failure(error: io::Error) {
    // A reader that went away wants no more lines; the exit code still tells.
    if error.kind() != io::ErrorKind::BrokenPipe {
        OUTPUT_FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// True if all that was printed to standard output arrived there, or nobody reads it any more.
///
/// # Errors
/// The first error of writing.
pub fn output_arrived() -> io::Result<()> {
    if let Err(error) = stdout().flush() {
        note_failure(error);
    }
    OUTPUT_FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
}

/// Prints a line for people, in printable form.
pub fn eprint_line(line: &str) {
    // Nothing is left to complain to.
    let _ = writeln!(stderr().lock(), "{}", printable(line));
}

fn json_line(value: &Value) -> String {
    printable_json(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_steers_no_terminal_and_means_the_same() {
        let value = json!({"a\u{9b}2J": "é\u{1b}[2J\n\u{202e}\u{e0041}\\\""});
        let line = json_line(&value);
        assert!(!line.chars().any(bigup_core::protocol::name::steers), "{line:?}");
        assert!(line.contains("é") && line.contains(r"\udb40\udc41"), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
