//! What the Debian package does with data when it is purged, without installing it: its script, in a folder in place of the
//! system's root.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::eventually;
use bigup_tests::{data, programs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A root folder with a data folder in it.
fn root() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("var/lib/bigup");
    std::fs::create_dir_all(&data).unwrap();
    (root, data)
}

/// Runs the script after a purge; what it said.
fn purge(root: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/debian/postrm");
    let mut purge = Command::new("sh");
    let output = purge.arg(script).arg("purge").env("DPKG_ROOT", root).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Has a daemon serve the data folder, with a token for it, and leaves what it leaves.
fn serve(data: &Path, work: impl FnOnce(&Daemon)) {
    let mut daemon = Daemon::with_data(data, &[]);
    work(&daemon);
    daemon.stop();
    let mut token = Command::new(programs::path("bigupd"));
    let made = token.args(["token", "new", "t", "--data-dir"]).arg(data).stdout(Stdio::null()).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_purge_takes_a_data_folder_in_which_nobody_has_files() {
    let (root, data) = root();
    serve(&data, |_| ());
    std::fs::create_dir(data.join("files/alice")).unwrap();
    assert!(data.join("tokens.json").exists());
    assert_eq!(purge(root.path()), "");
    assert!(!data.exists());
    // Once more, with nothing there.
    assert_eq!(purge(root.path()), "");
}

#[test]
fn a_purge_keeps_finished_files() {
    let (root, data) = root();
    serve(&data, |daemon| {
        let slice = data::bytes(1, 1000);
        daemon.server().post("file_name=f&slice_num=1&slice_id=0&slice_size=1000", &slice).expect(200);
        eventually("it is finished", || daemon.finished("f").exists());
    });
    let said = purge(root.path());
    assert!(said.contains("is kept") && said.contains("(1)"), "{said}");
    assert_eq!(std::fs::read(data.join("files/f")).unwrap(), data::bytes(1, 1000));
    assert!(data.join("tokens.json").exists());
}

#[test]
fn a_purge_keeps_unfinished_uploads() {
    let (root, data) = root();
    serve(&data, |daemon| {
        daemon.server().post("file_name=f&slice_num=2&slice_id=1&slice_size=1000", &data::bytes(1, 1000)).expect(200);
    });
    assert!(purge(root.path()).contains("is kept"));
    assert!(data.join("tmp/f/1").exists());
}

#[test]
fn a_purge_keeps_what_it_does_not_know_and_what_lies_elsewhere() {
    let (root, data) = root();
    let elsewhere = tempfile::tempdir().unwrap();
    // Names that look like bigup's own to whoever reads them by lines.
    std::fs::write(data.join("info.ini\ninfo.ini"), "").unwrap();
    assert!(purge(root.path()).contains("is kept"));
    assert!(data.exists());
    std::fs::remove_dir_all(&data).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &data).unwrap();
    assert_eq!(purge(root.path()), "");
    assert!(data.is_symlink() && elsewhere.path().exists());
}
