//! The commands of docs/operations.md: a backup brings every file back with its digest, and a data folder that was moved
//! goes on where it stopped.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::eventually;
use bigup_tests::{data, docs, programs};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MIB: u64 = 1 << 20;

/// Runs a block of the document with the package's folders replaced by the test's.
fn run(marker: &str, folders: &[(&str, &Path)]) -> Output {
    let mut script =
        docs::block("docs/operations.md", &format!("tests/tests/programs/documented_commands.rs: {marker}"));
    for (of_the_package, ours) in folders {
        assert!(script.contains(of_the_package), "{of_the_package}: {script}");
        script = script.replace(of_the_package, ours.to_str().expect("it is UTF-8"));
    }
    let programs = programs::path("bigupd").parent().expect("it is in a folder").to_owned();
    let search = format!("{}:{}", programs.display(), std::env::var("PATH").expect("it is set"));
    let output = Command::new("sh").args(["-euc", &script]).env("PATH", search).output().expect("sh can be started");
    assert!(output.status.success(), "{script}\n{output:?}");
    output
}

fn push(daemon: &Daemon, file: &Path) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", daemon.url(), "--slice-size", "1M", "--json"]);
    command
}

fn done(mut push: Command) -> serde_json::Value {
    let output = push.output().expect("bigup-cli can be started");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    serde_json::from_str(text.lines().last().expect("it says how it ended")).expect("it is JSON")
}

#[test]
fn a_backup_brings_finished_files_back_with_their_digests() {
    let daemon = Daemon::start();
    let scratch = daemon.scratch();
    let files = [("small", 5000), ("large", 9 * MIB + 1)].map(|(name, len)| data::file(&scratch, name, len, len));
    files.iter().for_each(|file| drop(done(push(&daemon, file))));
    std::fs::write(daemon.data().join("tokens.json"), "{\"version\":1,\"tokens\":[]}").unwrap();
    let (backup, restored) = (scratch.join("backup"), scratch.join("restored"));
    std::fs::create_dir_all(backup.join("files")).unwrap();
    run("backup", &[("/var/lib/bigup", &daemon.data()), ("/backup/bigup", &backup)]);
    std::fs::create_dir_all(restored.join("files")).unwrap();
    std::fs::create_dir_all(restored.join("tmp")).unwrap();
    let said = run("restore", &[("/var/lib/bigup", &restored), ("/backup/bigup", &backup)]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("2 files") && !said.contains("not known"), "{said}");
    for file in &files {
        assert!(data::same(file, &restored.join("files").join(file.file_name().unwrap())));
    }
    assert!(restored.join("tokens.json").exists());
    // Damage to what came back is found, as it would have been before.
    let damaged = restored.join("files/large");
    let modified = damaged.metadata().unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&damaged).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", MIB).unwrap();
    file.set_modified(modified).unwrap();
    let mut check = Command::new(programs::path("bigupd"));
    let checked = check.arg("check").arg("--data-dir").arg(&restored).output().unwrap();
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
}

#[test]
fn an_archive_keeps_the_digests() {
    let daemon = Daemon::start();
    let (scratch, restored) = (daemon.scratch(), daemon.scratch().join("restored"));
    done(push(&daemon, &data::file(&scratch, "file", 3, 3 * MIB)));
    std::fs::create_dir_all(restored.join("tmp")).unwrap();
    let archive = scratch.join("archive.tar");
    for (folder, mode) in [(daemon.data(), "-c"), (restored.clone(), "-x")] {
        let mut tar = Command::new("tar");
        tar.args(["--xattrs", "--format=posix", mode, "-f"]).arg(&archive).arg("-C").arg(folder).arg("files");
        assert!(tar.status().expect("tar can be started").success());
    }
    let mut check = Command::new(programs::path("bigupd"));
    let said = check.arg("check").arg("--data-dir").arg(&restored).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains("1 files") && !text.contains("not known"), "{said:?}");
}

#[test]
fn a_data_folder_that_was_moved_goes_on_where_it_stopped() {
    let mut daemon = Daemon::start();
    let scratch = daemon.scratch();
    let (finished, half) = (data::file(&scratch, "finished", 1, 3 * MIB), data::file(&scratch, "half", 2, 24 * MIB));
    done(push(&daemon, &finished));
    let mut cut = push(&daemon, &half).args(["--limit-rate", "4M"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("some of it is merged", || {
        daemon.info("half", "curr_merge_slice_id").is_some_and(|frontier| frontier.parse::<u64>().unwrap() >= 4)
    });
    bigup_tests::process::kill_9(&mut cut);
    daemon.stop();
    eventually("its merger has left", || daemon.info("half", "merge_slice_process_exist").as_deref() == Some("0"));
    let moved = scratch.join("moved");
    run("move", &[("/var/lib/bigup", &daemon.data()), ("/srv/bigup", &moved)]);
    let after = Daemon::with_data(&moved, &[]);
    let done = done(push(&after, &half));
    assert!(done["bytes_held"].as_u64().unwrap() >= 4 * MIB, "{done}");
    assert!(data::same(&half, &after.finished("half")) && data::same(&finished, &after.finished("finished")));
}
