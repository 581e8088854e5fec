//! Finding the programs: in `BIGUP_BIN_DIR`, else where cargo put them beside the running test. What tests have in C is
//! compiled beside them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program `name`, built.
///
/// # Panics
/// It is not there; says how to build it.
pub fn path(name: &str) -> PathBuf {
    let folder = match std::env::var_os("BIGUP_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            // Tests run from target/PROFILE/deps, benchmark programs from target/PROFILE.
            let me = std::env::current_exe().expect("a running program knows where it is");
            let folder = me.parent().expect("a program is in a folder");
            if folder.ends_with("deps") {
                folder.parent().expect("deps is in a folder").to_owned()
            } else {
                folder.to_owned()
            }
        }
    };
    let program = folder.join(name);
    assert!(program.exists(), "{} is not there: run `cargo build --workspace` first", program.display());
    program
}

/// `bigup-cli`, to be given arguments. It sees no settings of the surrounding shell.
pub fn cli() -> Command {
    let mut command = Command::new(path("bigup-cli"));
    for variable in ["BIGUP_URL", "BIGUP_TOKEN", "BIGUP_CA_CERT", "BIGUP_CLIENT_CERT", "BIGUP_CLIENT_KEY", "BIGUP_LOG"]
    {
        command.env_remove(variable);
    }
    // No file is there, and root can make none either.
    command.env("XDG_CONFIG_HOME", "/proc/none").env("XDG_CACHE_HOME", "/proc/none");
    command
}

/// All that a program printed on standard output, which must succeed.
///
/// # Panics
/// It does not; tells what it said.
#[track_caller]
pub fn succeed(mut command: Command) -> String {
    let output = command.output().expect("the program can be started");
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// `bigup-merger` for one upload.
pub fn merger(data: &Path, name: &str) -> Command {
    let mut command = Command::new(path("bigup-merger"));
    command.arg("--data-dir").arg(data).arg(format!("--file-name={name}"));
    command
}

/// Compiles `source`, a file in C below the tests' folder, to `name` beside the programs.
///
/// # Panics
/// There is no C compiler, or it says no.
pub fn compiled(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let made = path("bigupd").with_file_name(name);
    // By another name first: tests of another process may be using it.
    let fresh = made.with_file_name(format!("{name}.{}", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(flags).arg("-o").arg(&fresh).arg(source);
    let output = cc.output().unwrap_or_else(|e| panic!("cc cannot be started ({e}): these tests need a C compiler"));
    assert!(output.status.success(), "{cc:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&fresh, &made).expect("it can be renamed");
    made
}
