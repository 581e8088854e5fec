// A daemon for the examples in the documentation, which include this file. It is built before: `cargo build --workspace`.

/// A running `bigupd` on a new folder. Both end with this.
struct Daemon {
    child: std::process::Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};

        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(program());
        command.arg("--data-dir").arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0"]);
        let command = command.arg("--until-stdin-closes").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bigupd can be started");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("its standard output is a pipe");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let url = line.trim_end().rsplit(' ').next().expect("the URL comes last").to_owned();
        Daemon { child, url, folder }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // This closes its standard input first.
        let _ = self.child.wait();
    }
}

/// `bigupd` in `BIGUP_BIN_DIR`, else in the target folder.
fn program() -> std::path::PathBuf {
    let folder = |variable| std::env::var_os(variable).map(std::path::PathBuf::from);
    let target = folder("CARGO_TARGET_DIR").unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    let built = ["debug", "release"].map(|profile| target.join(profile));
    let found = folder("BIGUP_BIN_DIR").into_iter().chain(built).map(|folder| folder.join("bigupd"));
    found.into_iter().find(|path| path.exists()).expect("bigupd is there: run `cargo build --workspace` first")
}
