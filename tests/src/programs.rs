//! Finding the programs: in `BIGUP_BIN_DIR`, else where cargo put them beside the running test. What tests have in C is
//! compiled beside them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// Starts a push of `file` in slices of so many bytes, whose events [`done`] reads.
///
/// # Panics
/// It cannot be started.
pub fn begin_push(url: &str, file: &Path, slice_size: u64, arguments: &[&str]) -> Child {
    let mut push = cli();
    push.args(["push", "--json", "--slice-size", &slice_size.to_string(), "--url", url]).arg(file).args(arguments);
    push.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the client can be started")
}

/// Waits for the end of a push that was begun with `--json`, and gives its last event.
///
/// # Panics
/// The push does not succeed, or told an error on the way.
#[track_caller]
pub fn done(push: Child) -> Value {
    let output = push.wait_with_output().expect("it was started");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!shown.contains("\"event\":\"error\""), "{shown}");
    let mut events = shown.lines().rev().map(|line| serde_json::from_str::<Value>(line).expect("an event is JSON"));
    events.find(|event| event["event"] == "done").expect("the push says so")
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

/// Makes the token `name` of a data folder, with further arguments of `token new`; the secret.
///
/// # Panics
/// It cannot be made.
pub fn new_token(data: &Path, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(path("bigupd"));
    command.arg("--data-dir").arg(data).args(["token", "new", name]).args(arguments);
    let output = command.output().expect("bigupd can be started");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it is UTF-8").trim().to_owned()
}
