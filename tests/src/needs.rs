//! The one way in which a test is skipped: it needs root, to mount a file system, make a network namespace or become another
//! user, and the tests run without.
//!
//! A skipped test passes. It prints a line, whatever the harness captures, and adds it to the file that `BIGUP_SKIPPED` names,
//! which `tests/run` reads out at its end. With `BIGUP_REQUIRE_ROOT=1`, as in CI, it fails instead.

use std::fs::File;
use std::io::Write;

/// Variable that makes a test fail where it would be skipped.
pub const REQUIRE_ROOT: &str = "BIGUP_REQUIRE_ROOT";

/// Variable that names the file to which skipped tests are added, a line each.
pub const SKIPPED: &str = "BIGUP_SKIPPED";

/// Ends the test that begins with it, as skipped, where it does not run as root. Takes what root is needed for.
///
/// # Panics
/// It does not run as root, and [`REQUIRE_ROOT`] is 1.
#[macro_export]
macro_rules! needs_root {
    ($what:literal) => {
        // A closure's type tells in which function it stands.
        if !$crate::needs::root(std::any::type_name_of_val(&|| ()), $what) {
            return;
        }
    };
}

/// Whether the tests run as root; tells aloud that `test` is skipped where they do not. For [`needs_root!`].
///
/// # Panics
/// They do not, and [`REQUIRE_ROOT`] is 1.
pub fn root(test: &str, what: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let line = format!("SKIPPED {}: it needs root {what}", test.trim_end_matches("::{{closure}}"));
    assert!(std::env::var(REQUIRE_ROOT).as_deref() != Ok("1"), "{line}, and {REQUIRE_ROOT} is 1");
    tell(&line);
    false
}

fn tell(line: &str) {
    // What goes by eprintln! is shown of tests that fail only. Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(path) = std::env::var_os(SKIPPED) {
        let file = File::options().create(true).append(true).open(&path);
        // At once: tests of other processes add lines too.
        let added = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        added.unwrap_or_else(|e| panic!("{} cannot be written: {e}", path.display()));
    }
}
