//! Finding the programs: in `BIGUP_BIN_DIR`, else where cargo put them beside the running test.

use std::path::PathBuf;
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
    command
}

/// `bigup-merger` for one upload.
pub fn merger(data: &std::path::Path, name: &str) -> Command {
    let mut command = Command::new(path("bigup-merger"));
    command.arg("--data-dir").arg(data).arg(format!("--file-name={name}"));
    command
}
