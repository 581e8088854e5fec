//! Things in the data folder that are none of bigup's doing: links, pipes, devices and folders in the places of its files,
//! folders that cannot be written to, file systems that lack much. Each request gets an answer, nothing outside is
//! touched, other uploads go on, the log names the trouble, and once it is mended all is well. Needs root, exfatprogs, exfat-fuse.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::mount::{Mount, run};
use bigup_tests::needs_root;
use bigup_tests::process::eventually;
use bigup_tests::{data, programs};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SLICE: usize = 1024;

/// What may stand where a file of ours is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hostile {
    LinkToFile,
    LinkToFolder,
    LinkToNothing,
    Pipe,
    Device,
    Folder,
}

const ALL: [Hostile; 6] = [
    Hostile::LinkToFile,
    Hostile::LinkToFolder,
    Hostile::LinkToNothing,
    Hostile::Pipe,
    Hostile::Device,
    Hostile::Folder,
];

/// A folder outside the data folder that must stay as it is.
struct Outside(tempfile::TempDir);

impl Outside {
    fn new() -> Outside {
        let outside = Outside(tempfile::tempdir().unwrap());
        fs::write(outside.0.path().join("canary"), "c").unwrap();
        outside
    }

    /// Puts something hostile in the place of `path`.
    fn place(&self, what: Hostile, path: &Path) {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
        match what {
            Hostile::LinkToFile => symlink(self.0.path().join("canary"), path).unwrap(),
            Hostile::LinkToFolder => symlink(self.0.path(), path).unwrap(),
            Hostile::LinkToNothing => symlink(self.0.path().join("new"), path).unwrap(),
            Hostile::Pipe => nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap(),
            Hostile::Device => {
                mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, nix::sys::stat::makedev(1, 5)).unwrap();
            }
            Hostile::Folder => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("x"), "x").unwrap();
            }
        }
    }

    fn assert_untouched(&self) {
        assert_eq!(list(self.0.path()), ["canary"]);
        assert_eq!(fs::read(self.0.path().join("canary")).unwrap(), b"c");
    }
}

fn daemon() -> Daemon {
    Daemon::with(&["--merger-idle", "100ms", "--takeover-after", "0"])
}

fn begin(daemon: &Daemon, name: &str) -> u16 {
    daemon.server().get(&format!("file_name={name}&slice_size={SLICE}&file_size={}", 4 * SLICE)).status
}

fn post(daemon: &Daemon, name: &str, slice_id: usize) -> u16 {
    let query = format!("file_name={name}&slice_id={slice_id}&slice_size={SLICE}");
    daemon.server().post(&query, &[7; SLICE]).status
}

/// A whole upload of four slices goes through.
fn assert_goes_through(daemon: &Daemon, name: &str) {
    assert_eq!(begin(daemon, name), 200, "{name}");
    (0..4).for_each(|slice_id| assert_eq!(post(daemon, name, slice_id), 200, "{name}, slice {slice_id}"));
    eventually("the file is finished", || daemon.finished(name).exists());
    assert!(fs::read(daemon.finished(name)).unwrap() == vec![7; 4 * SLICE]);
}

#[test]
fn in_the_place_of_an_uploads_files() {
    needs_root!("to make devices");
    let daemon = daemon();
    let outside = Outside::new();
    for (i, file) in ["upload.json", "digests", "merged", "merger.lock", "hash", "2", "0"].into_iter().enumerate() {
        for (j, what) in ALL.into_iter().enumerate() {
            let name = format!("f{i}{j}");
            let place = daemon.data().join("tmp").join(&name).join(file);
            assert_eq!((begin(&daemon, &name), post(&daemon, &name, 1)), (200, 200));
            outside.place(what, &place);
            let log = daemon.log().len();
            daemon.server().get(&format!("peek=1&file_name={name}"));
            daemon.server().get(&format!("peek=1&file_name={name}&digests=0-3"));
            let answers: Vec<u16> = (0..4).map(|slice_id| post(&daemon, &name, slice_id)).collect();
            let again = begin(&daemon, &name);
            assert!(daemon.server().get("peek=1").status == 200, "the list of uploads");
            if answers.contains(&500) || again == 500 {
                let log = &daemon.log()[log..];
                assert!(log.contains(place.to_str().unwrap()), "{file} {what:?}: {log}");
            }
            outside.assert_untouched();
            assert_goes_through(&daemon, &format!("other{i}{j}"));
            // Where the thing could be replaced the upload went through; else it does once its folder is gone.
            let spool = daemon.data().join("tmp").join(&name);
            if !daemon.finished(&name).exists() && spool.exists() {
                // Removing what a merger is about to publish may meet it in between.
                eventually("the folder is removed", || fs::remove_dir_all(&spool).is_ok() || !spool.exists());
            }
            if !daemon.finished(&name).exists() {
                assert_goes_through(&daemon, &name);
            }
        }
    }
    outside.assert_untouched();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.eventually_clean();
}

#[test]
fn in_the_place_of_an_upload() {
    needs_root!("to make devices");
    let daemon = daemon();
    let outside = Outside::new();
    for (i, what) in ALL.into_iter().enumerate() {
        let name = format!("f{i}");
        let place = daemon.data().join("tmp").join(&name);
        outside.place(what, &place);
        let refused = [begin(&daemon, &name), post(&daemon, &name, 0)];
        // A folder is an upload that cannot be used, and is begun anew.
        let expected = if what == Hostile::Folder { [200, 200] } else { [409, 409] };
        assert_eq!(refused, expected, "{what:?}");
        outside.assert_untouched();
        if what != Hostile::Folder {
            assert!(daemon.log().contains(&format!("{}: ", place.display())), "{what:?} is named");
            fs::remove_file(&place).unwrap();
        }
        assert_goes_through(&daemon, &name);
    }
    outside.assert_untouched();
}

#[test]
fn in_the_place_of_a_finished_file_or_its_folder() {
    needs_root!("to make devices");
    let daemon = daemon();
    let outside = Outside::new();
    for (i, what) in ALL.into_iter().enumerate() {
        let (name, inner) = (format!("f{i}"), format!("d{i}/f"));
        outside.place(what, &daemon.finished(&name));
        let answer = daemon.server().get(&format!("file_name={name}&slice_size={SLICE}&file_size={}", 4 * SLICE));
        assert_eq!(answer.status, 409, "{what:?}");
        assert!(answer.message().contains(&name), "{}", answer.message());
        // It comes in the middle of an upload.
        assert_eq!(begin(&daemon, &inner), 200);
        outside.place(what, &daemon.finished(&format!("d{i}")));
        (0..4).for_each(|slice_id| assert_eq!(post(&daemon, &inner, slice_id), 200, "{what:?}"));
        if what == Hostile::Folder {
            eventually("the file is finished", || daemon.finished(&inner).exists());
            continue;
        }
        eventually("the trouble is told", || daemon.info(&inner, "last_error").is_some());
        assert!(daemon.info(&inner, "last_error").unwrap().contains("not a folder"));
        outside.assert_untouched();
        fs::remove_file(daemon.finished(&format!("d{i}"))).unwrap();
        // Beginning anew with a word of one's own is what takes the blockade back.
        let replace = format!("file_name={inner}&slice_size={SLICE}&file_size={}&replace=1", 4 * SLICE);
        daemon.server().get(&replace).expect(200);
        eventually("the file is finished", || daemon.finished(&inner).exists());
    }
    outside.assert_untouched();
}

#[test]
fn in_the_place_of_info_ini_and_of_the_note_of_looks() {
    needs_root!("to make devices");
    let daemon = Daemon::with(&["--merger-idle", "100ms", "--expire-after", "1m"]);
    let outside = Outside::new();
    for (i, what) in ALL.into_iter().enumerate() {
        let log = daemon.log().len();
        let broken = daemon.data().join("info.ini.broken");
        if let Ok(found) = broken.symlink_metadata() {
            if found.is_dir() { fs::remove_dir_all(&broken).unwrap() } else { fs::remove_file(&broken).unwrap() }
        }
        outside.place(what, &daemon.data().join("info.ini"));
        outside.place(what, &daemon.data().join("expiry.json"));
        assert_goes_through(&daemon, &format!("f{i}"));
        assert!(daemon.log()[log..].contains("info.ini: not a regular file"), "{what:?}");
        assert!(daemon.data().join("info.ini").symlink_metadata().unwrap().is_file());
        outside.assert_untouched();
        begin(&daemon, "open");
        eventually("it shows uploads", || daemon.info("open", "slice_num").as_deref() == Some("4"));
    }
}

#[test]
fn in_the_place_of_the_folders_themselves() {
    needs_root!("to make devices");
    let outside = Outside::new();
    for folder in ["tmp", "files"] {
        for what in ALL.into_iter().filter(|what| *what != Hostile::Folder) {
            let mut daemon = daemon();
            let (place, away) = (daemon.data().join(folder), daemon.data().join("away"));
            begin(&daemon, "f");
            fs::rename(&place, &away).unwrap();
            outside.place(what, &place);
            let log = daemon.log().len();
            let small = daemon.server().post("file_name=small&slice_num=1&slice_id=0&slice_size=1", b"x");
            assert_eq!(small.status, 500, "{folder} {what:?}: {small:?}");
            if folder == "tmp" {
                assert_eq!([begin(&daemon, "f"), post(&daemon, "f", 0), begin(&daemon, "new")], [500; 3], "{what:?}");
            }
            assert!(daemon.log()[log..].contains(place.to_str().unwrap()), "{folder} {what:?}");
            outside.assert_untouched();
            daemon.stop();
            let output = Command::new(programs::path("bigupd")).arg("--data-dir").arg(daemon.data()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(place.to_str().unwrap()) && said.contains("not a folder"), "{said}");

            fs::remove_file(&place).unwrap();
            fs::rename(&away, &place).unwrap();
            daemon.run();
            assert_goes_through(&daemon, "f");
            assert_goes_through(&daemon, "g");
        }
    }
    outside.assert_untouched();
}

#[test]
fn a_file_system_that_turns_read_only_is_told_and_uploads_go_on_once_it_is_mended() {
    needs_root!("to mount a file system");
    let mount = Mount::in_memory("tmpfs", "size=64m");
    let remount = |options: &str| run(Command::new("mount").args(["-o", options]).arg(mount.path()));
    let mut daemon = Daemon::with_data(&mount.path().join("data"), &["--merger-idle", "100ms", "--reserve", "0"]);
    begin(&daemon, "f");
    assert_eq!(post(&daemon, "f", 0), 200);
    eventually("the merger is gone", || daemon.info("f", "merger_pid").is_none());
    eventually("it can be remounted", || {
        let ended = Command::new("mount").args(["-o", "remount,ro"]).arg(mount.path()).stderr(Stdio::null()).status();
        ended.unwrap().success()
    });
    let log = daemon.log().len();
    assert_eq!([post(&daemon, "f", 1), begin(&daemon, "new")], [500; 2]);
    assert!(daemon.log()[log..].contains("Read-only file system"));
    assert_eq!(daemon.server().get("peek=1&file_name=f").expect(200).held(), [0]);
    remount("remount,rw");
    (1..4).for_each(|slice_id| assert_eq!(post(&daemon, "f", slice_id), 200));
    eventually("the file is finished", || daemon.finished("f").exists());
    daemon.stop();
}

/// A folder that nobody can write to, not even root (chattr(1)), for as long as this lives.
struct Immutable(PathBuf);

impl Immutable {
    fn new(folder: PathBuf) -> Immutable {
        run(Command::new("chattr").arg("+i").arg(&folder));
        Immutable(folder)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        run(Command::new("chattr").arg("-i").arg(&self.0));
    }
}

#[test]
fn a_folder_of_finished_files_that_cannot_be_written_to_is_told_and_mended() {
    needs_root!("to make a folder immutable");
    let daemon = daemon();
    let immutable = Immutable::new(daemon.data().join("files"));
    let small = daemon.server().post("file_name=small&slice_num=1&slice_id=0&slice_size=1", b"x");
    begin(&daemon, "f");
    let posted: Vec<u16> = (0..4).map(|slice_id| post(&daemon, "f", slice_id)).collect();
    eventually("the trouble is told", || daemon.info("f", "last_error").is_some());
    let (told, log) = (daemon.info("f", "last_error").unwrap(), daemon.log());
    drop(immutable);
    // The small one is told to come back: what is said of the folder is what file systems say that cannot link it there.
    assert_eq!((small.status, &posted[..]), (409, &[200; 4][..]));
    assert!(told.contains("files/f") && log.contains("files/small"), "{told}");
    eventually("the file is finished", || daemon.finished("f").exists());
    // Nothing is held of a file that needed no spool: it is sent again.
    daemon.server().post("file_name=small&slice_num=1&slice_id=0&slice_size=1", b"x").expect(200);
    assert!(daemon.finished("small").exists());
    daemon.eventually_clean();
}

#[test]
fn a_data_folder_of_somebody_else_is_a_failure_that_says_so() {
    needs_root!("to become another user");
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where anybody may execute it, wherever the sources are.
    let program = folder.path().join("bigupd");
    fs::copy(programs::path("bigupd"), &program).unwrap();
    let made = folder.path().join("made");
    for sub in ["tmp", "files"] {
        fs::create_dir_all(made.join(sub)).unwrap();
    }
    std::os::unix::fs::chown(&made, Some(65534), Some(65534)).unwrap();
    for (data, part) in [("new/data", "new"), ("made", "made/tmp")] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command.arg("--data-dir").arg(folder.path().join(data)).args(["--listen", "127.0.0.1:0"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let path = folder.path().join(part);
        assert!(said.contains(path.to_str().unwrap()) && said.contains("Permission denied"), "{said}");
    }
}

fn push(daemon: &Daemon, name: &str, path: &Path) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(path).args(["--url", daemon.url(), "--name", name, "--slice-size", "64K"]);
    command.stdin(Stdio::null());
    command
}

/// No attributes, no links, no reflinks, no rename that does not replace; names that differ by case only are one.
#[test]
fn the_file_system_of_cameras_and_sticks_will_do() {
    needs_root!("to mount a file system");
    let mount = Mount::served(&["mkfs.exfat"], 128 << 20, "exfat-fuse");
    let mut daemon = Daemon::with_data(&mount.path().join("data"), &["--merger-idle", "300ms", "--reserve", "0"]);
    let file = data::file(&daemon.scratch(), "f", 1, (16 << 20) + 5);
    let mut interrupted = push(&daemon, "dir/f", &file).spawn().unwrap();
    eventually("some slices are held", || daemon.server().get("peek=1&file_name=dir%2Ff").held().len() > 20);
    bigup_tests::process::kill_9(&mut interrupted);
    daemon.kill_9();
    daemon.run();
    for name in ["dir/f", "g"] {
        let output = push(&daemon, name, &file).output().unwrap();
        assert!(output.status.success(), "{output:?}\n{}", daemon.log());
        assert!(data::same(&file, &daemon.finished(name)));
    }
    assert_eq!(daemon.server().get("peek=1&file_name=g").expect(200).body["file_digest"], serde_json::Value::Null);
    let other = daemon.server().get("file_name=g&slice_size=1024&file_size=4096").expect(409);
    assert!(other.message().contains("exists"), "{}", other.message());
    // It appears in the middle of an upload, which must not replace it.
    begin(&daemon, "late");
    fs::write(daemon.finished("late"), "mine").unwrap();
    (0..4).for_each(|slice_id| assert_eq!(post(&daemon, "late", slice_id), 200));
    eventually("it is told", || daemon.info("late", "last_error").is_some_and(|why| why.contains("exists")));
    assert_eq!(fs::read(daemon.finished("late")).unwrap(), b"mine");
    // One spool for two names: the second one is refused, whatever the first holds.
    assert_eq!([begin(&daemon, "upper"), begin(&daemon, "UPPER")], [200, 500]);
    assert!(daemon.log().contains("it is the upload of upper"));
    let checked = Command::new(programs::path("bigupd")).arg("check").arg("--data-dir").arg(daemon.data()).output();
    let said = String::from_utf8(checked.unwrap().stdout).unwrap();
    assert!(said.contains("0 damaged") && said.contains("3 files not known"), "{said}");
    daemon.stop();
}

#[test]
fn devices_pipes_and_folders_in_place_of_slices_give_way() {
    needs_root!("to make devices");
    let daemon = daemon();
    let outside = Outside::new();
    for (i, what) in ALL.into_iter().enumerate() {
        let name = format!("f{i}");
        begin(&daemon, &name);
        let place = daemon.data().join("tmp").join(&name).join("1");
        outside.place(what, &place);
        let status = post(&daemon, &name, 1);
        assert_eq!(status, 200, "{what:?}");
        assert!(place.symlink_metadata().is_ok_and(|found| !found.file_type().is_fifo()));
        [0, 2, 3].into_iter().for_each(|slice_id| assert_eq!(post(&daemon, &name, slice_id), 200));
        eventually("the file is finished", || daemon.finished(&name).exists());
    }
    outside.assert_untouched();
}
