//! Real file systems, mounted from sparse image files: how slices are merged on each, what happens when one is full, and
//! when a source lies on one.
//! Needs root, and the programs of xfsprogs, btrfs-progs and e2fsprogs.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::http::{Answer, Server, raw};
use bigup_tests::mount::{Bind, Mount};
use bigup_tests::needs_root;
use bigup_tests::{data, http, process::eventually, programs};
use nix::sys::statvfs::statvfs;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: usize = 1 << 20;
const SLICE_SIZE: usize = 8 * MIB;

/// A daemon that leaves no disk space free: these file systems are smaller than what it leaves by default.
fn daemon_on(mount: &Mount, arguments: &[&str]) -> Daemon {
    Daemon::with_data(&mount.path().join("data"), &[arguments, &["--reserve", "0"]].concat())
}

fn slice(content: &[u8], slice_id: usize) -> &[u8] {
    content.chunks(SLICE_SIZE).nth(slice_id).expect("the slice is within the content")
}

fn begin(server: &Server, name: &str, content: &[u8]) -> Answer {
    let slice_num = content.len().div_ceil(SLICE_SIZE);
    let file_size = content.len();
    server.get(&format!("file_name={name}&slice_num={slice_num}&slice_size={SLICE_SIZE}&file_size={file_size}"))
}

fn post(server: &Server, name: &str, content: &[u8], slice_id: usize) -> Answer {
    let bytes = slice(content, slice_id);
    server.post(&format!("file_name={name}&slice_id={slice_id}&slice_size={}", bytes.len()), bytes)
}

/// Sends all slices but those held, the first two in the wrong order, and waits for the file.
fn push(daemon: &Daemon, name: &str, content: &[u8]) {
    let server = daemon.server();
    let held = begin(&server, name, content).expect(200).held();
    let mut missing: Vec<usize> = (0..content.len().div_ceil(SLICE_SIZE)).collect();
    missing.swap(0, 1);
    for slice_id in missing.into_iter().filter(|id| !held.contains(&(*id as u64))) {
        post(&server, name, content, slice_id).expect(200);
    }
    wait_for_exact(daemon, name, content);
}

fn wait_for_exact(daemon: &Daemon, name: &str, content: &[u8]) {
    eventually("the file is finished", || begin(&daemon.server(), name, content).expect(200).body["is_uploaded"] == 1);
    let finished = fs::read(daemon.finished(name)).expect("it is there");
    assert!(finished == content, "the content differs");
    daemon.eventually_clean();
}

/// Pushes a file whose last slice ends within a block; by which methods slices were merged.
fn methods(mount: &Mount) -> Vec<&'static str> {
    let daemon = daemon_on(mount, &["--merger-idle", "2s"]);
    let content = data::bytes(1, 64 * MIB - 777);
    push(&daemon, "file.bin", &content);
    let log = daemon.log();
    ["reflink", "splice", "copy_file_range", "read and write"]
        .into_iter()
        .filter(|method| {
            log.lines().any(|line| line.contains("merging slice") && line.ends_with(&format!("by {method}")))
        })
        .collect()
}

#[test]
fn xfs_shares_the_blocks_of_slices() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], 512 << 20);
    assert_eq!(methods(&mount), ["reflink"]);
}

#[test]
fn btrfs_shares_the_blocks_of_slices() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.btrfs", "-q"], 512 << 20);
    assert_eq!(methods(&mount), ["reflink"]);
}

#[test]
fn ext4_copies_slices_in_the_kernel() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.ext4", "-q"], 512 << 20);
    assert_eq!(methods(&mount), ["splice"]);
}

#[test]
fn tmpfs_copies_slices_in_the_kernel() {
    needs_root!("to mount file systems");
    let mount = Mount::in_memory("tmpfs", "size=256m");
    assert_eq!(methods(&mount), ["splice"]);
}

#[test]
fn without_extended_attributes_files_arrive_and_their_digests_are_not_known_later() {
    needs_root!("to mount file systems");
    let mount = Mount::in_memory("ramfs", "mode=700");
    let daemon = daemon_on(&mount, &[]);
    let content = data::bytes(5, 2 * SLICE_SIZE + 1);
    push(&daemon, "file.bin", &content);
    let answer = daemon.server().get("peek=1&file_name=file.bin").expect(200);
    assert_eq!((&answer.body["is_uploaded"], &answer.body["file_digest"]), (&1.into(), &serde_json::Value::Null));
    assert!(daemon.log().contains("the digest is not kept"));
    let told = daemon.server().get(&format!("file_name=file.bin&slice_num=3&file_digest={}", "0".repeat(64)));
    // Somebody asks for it, so the file is read.
    assert!(told.expect(409).message().contains(&blake3::hash(&content).to_string()));
    let of_it = format!("file_name=file.bin&slice_num=3&file_digest={}", blake3::hash(&content));
    assert_eq!(daemon.server().get(&of_it).expect(200).body["is_uploaded"], 1);
}

/// Fills `mount` up to about `space` bytes; the filler's path.
fn fill(mount: &Mount, space: usize) -> PathBuf {
    let path = mount.path().join("filler");
    let free = free(&mount.path());
    let filler = vec![1; free.saturating_sub(space)];
    fs::write(&path, filler).expect("there is disk space for it");
    path
}

fn free(path: &Path) -> usize {
    let found = nix::sys::statvfs::statvfs(path).expect("it is mounted");
    usize::try_from(found.blocks_available() * found.fragment_size()).expect("it is small")
}

/// Slices of a file are sent, the first one last, until there is no disk space; then some is freed.
fn survives_being_full(mount: &Mount) {
    let daemon = daemon_on(mount, &["--merger-idle", "1s"]);
    let (server, name) = (daemon.server(), "file.bin");
    let content = data::bytes(2, 3 * SLICE_SIZE + 777);
    begin(&server, name, &content).expect(200);
    post(&server, name, &content, 3).expect(200);
    post(&server, name, &content, 1).expect(200);
    let filler = fill(mount, SLICE_SIZE + SLICE_SIZE / 2);
    // The disk space that is left is for slice 0, the next to be merged.
    assert_eq!(post(&server, name, &content, 2).expect(507).body["error"], "no_space");
    fs::remove_file(&filler).expect("it is there");
    post(&server, name, &content, 2).expect(200);
    fill(mount, SLICE_SIZE / 2);
    let refused = post(&server, name, &content, 0).expect(507);
    assert_eq!(refused.body["error"], "no_space");
    assert_eq!(begin(&server, name, &content).expect(200).held(), [1, 2, 3]);
    assert_eq!(list(&daemon.data().join("files")), Vec::<String>::new());
    let spool = daemon.data().join("tmp").join(&daemon.spools()[0]);
    assert!(!list(&spool).iter().any(|name| name.ends_with(".part")), "part of the slice is left");

    fs::remove_file(filler).expect("it is there");
    push(&daemon, name, &content);
}

#[test]
fn a_full_ext4_loses_nothing() {
    needs_root!("to mount file systems");
    survives_being_full(&Mount::new(&["mkfs.ext4", "-q", "-m", "0"], 64 << 20));
}

#[test]
fn a_full_tmpfs_loses_nothing() {
    needs_root!("to mount file systems");
    survives_being_full(&Mount::in_memory("tmpfs", "size=64m"));
}

/// Slices wait as files and are copied: where nothing can be reserved, as on ext4 before extents, merging needs disk space
/// for what is not yet unlinked. With disk space for one slice the whole file must get through all the same.
#[test]
fn merging_goes_on_with_disk_space_for_a_single_slice() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.ext4", "-q", "-m", "0", "-O", "^extent,^64bit"], 64 << 20);
    let daemon = daemon_on(&mount, &["--merger-idle", "1s"]);
    let (server, name) = (daemon.server(), "file.bin");
    let content = data::bytes(3, 4 * SLICE_SIZE + 777);
    begin(&server, name, &content).expect(200);
    for slice_id in (1..5).rev() {
        post(&server, name, &content, slice_id).expect(200);
    }
    fill(&mount, SLICE_SIZE + SLICE_SIZE + MIB);
    post(&server, name, &content, 0).expect(200);
    wait_for_exact(&daemon, name, &content);
}

#[test]
fn a_file_system_without_inodes_left_says_so() {
    needs_root!("to mount file systems");
    let mount = Mount::in_memory("tmpfs", "size=64m,nr_inodes=24");
    let daemon = daemon_on(&mount, &["--merger-idle", "1s"]);
    let (server, name) = (daemon.server(), "file.bin");
    let content = data::bytes(4, 2 * SLICE_SIZE);
    begin(&server, name, &content).expect(200);
    let fillers = mount.path().join("fillers");
    fs::create_dir(&fillers).expect("there is an inode left");
    let made = (0..30).take_while(|i| fs::write(fillers.join(i.to_string()), "").is_ok()).count();
    assert!(made < 30, "there is always an inode left");
    let refused = post(&server, name, &content, 1).expect(507);
    assert!(refused.body["error"] == "no_space" && refused.message().contains("of the 24"), "{refused:?}");
    fs::remove_dir_all(&fillers).expect("it is there");
    push(&daemon, name, &content);
}

/// What a daemon says that is not to start on `data`.
fn refused_start(data: &Path, more: &[&str]) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    command.arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0"]).args(more).stdin(Stdio::null());
    let output = command.output().expect("it can be started");
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn finished_files_on_another_mount_than_spools_are_told_at_the_start() {
    needs_root!("to mount file systems");
    let (folder, disk) = (tempfile::tempdir().unwrap(), Mount::in_memory("tmpfs", "size=64m"));
    let (data, same_device) = (folder.path().join("data"), folder.path().join("other"));
    for folder in [&data.join("files"), &data.join("tmp"), &same_device] {
        fs::create_dir_all(folder).expect("it can be made");
    }
    for elsewhere in [&disk.path(), &same_device] {
        for point in ["files", "tmp"] {
            let _mounted = Bind::new(elsewhere, &data.join(point));
            for more in [&[][..], &["--check-config"]] {
                let said = refused_start(&data, more);
                for part in [data.join("files").to_str().unwrap(), data.join("tmp").to_str().unwrap(), "mount one disk"]
                {
                    assert!(said.contains(part), "{part}: {said}");
                }
            }
        }
    }
    // What it says to do.
    let _mounted = Bind::new(&disk.path(), &data);
    let daemon = Daemon::with_data(&data, &["--reserve", "0"]);
    push(&daemon, "file.bin", &data::bytes(6, SLICE_SIZE + 1));
}

#[test]
fn what_is_mounted_below_finished_files_is_told_before_anything_is_taken() {
    needs_root!("to mount file systems");
    let disk = Mount::in_memory("tmpfs", "size=64m");
    let mut daemon = Daemon::start();
    let (files, content) = (daemon.data().join("files"), data::bytes(7, SLICE_SIZE + 1));
    fs::create_dir_all(files.join("videos/new")).expect("it can be made");
    begin(&daemon.server(), "videos/begun", &content).expect(200);
    let mounted = Bind::new(&disk.path(), &files.join("videos"));
    fs::write(files.join("videos/old"), "old").expect("it can be written");
    daemon.stop();
    daemon.run();
    assert!(daemon.log().contains("videos is a mount of its own"), "it is told at the start");
    let server = daemon.server();
    let replacing = "file_name=videos/old&slice_num=2&slice_size=4&file_size=8&replace=1&source=s";
    let small = "file_name=videos/s&slice_id=0&slice_num=1&slice_size=1&file_size=1";
    let refused = [
        begin(&server, "videos/f", &content),
        begin(&server, "videos/other/f", &content),
        begin(&server, "videos/begun", &content),
        server.get(replacing),
        server.post(small, b"x"),
    ];
    for answer in refused.map(|answer| answer.expect(409)) {
        for part in ["files/videos", "tmp", "mount one disk", "outside of files/videos"] {
            assert!(answer.message().contains(part), "{part}: {answer:?}");
        }
    }
    assert_eq!(daemon.spools(), ["videos%2Fbegun"], "nothing more was begun");
    // What it says to do: another name, or no such mount.
    server.post(&small.replace("videos/s", "s"), b"x").expect(200);
    drop(mounted);
    push(&daemon, "videos/begun", &content);
    server.post(small, b"x").expect(200);
}

#[test]
fn what_is_mounted_while_a_daemon_runs_makes_it_not_ready_and_blocks_what_is_whole() {
    needs_root!("to mount file systems");
    let disk = Mount::in_memory("tmpfs", "size=64m");
    let daemon = Daemon::with(&["--merger-idle", "1s"]);
    let (server, content) = (daemon.server(), data::bytes(8, SLICE_SIZE + 1));
    let ready = |status: u16| {
        http::raw(daemon.url(), b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .starts_with(&format!("HTTP/1.1 {status}"))
    };
    begin(&server, "f", &content).expect(200);
    post(&server, "f", &content, 0).expect(200);
    let mounted = Bind::new(&disk.path(), &daemon.data().join("files"));
    eventually("it is not ready", || ready(503));
    let told = begin(&server, "f", &content).expect(409);
    assert!(told.message().contains("mount one disk") && !told.message().contains("outside"), "{told:?}");
    post(&server, "f", &content, 1).expect(200);
    let told = || daemon.info("f", "last_error").is_some_and(|told| told.contains("another mount"));
    eventually("the operator is told", told);
    drop(mounted);
    eventually("it is ready", || ready(200));
    let anew = format!("file_name=f&slice_size={SLICE_SIZE}&file_size={}&replace=1", content.len());
    server.get(&anew).expect(200);
    wait_for_exact(&daemon, "f", &content);
}

#[test]
fn as_large_a_part_of_the_inodes_stays_free_as_of_the_bytes() {
    needs_root!("to mount file systems");
    let mount = Mount::in_memory("tmpfs", "size=64m,nr_inodes=400");
    let daemon = Daemon::with_data(&mount.path().join("data"), &["--reserve", "16M"]);
    let (server, left) = (daemon.server(), || statvfs(&mount.path()).expect("it is mounted").files_available());
    let (one, small) =
        ("file_name=a&slice_size=1000&file_size=4000", "file_name=b&slice_id=0&slice_num=1&slice_size=1");
    let fillers = mount.path().join("fillers");
    fs::create_dir(&fillers).expect("there is an inode left");
    for i in 0.. {
        if left() <= 104 {
            break;
        }
        fs::write(fillers.join(i.to_string()), "").expect("there is an inode left");
    }
    for refused in [server.get(one).expect(507), server.post(small, b"x").expect(507)] {
        for part in ["8 inodes", "of the 400", "of which 100 stay free", "remove"] {
            assert!(refused.message().contains(part), "{part}: {refused:?}");
        }
    }
    for i in 0..8 {
        fs::write(fillers.join(format!("more{i}")), "").expect("there is an inode left");
    }
    eventually("it is not ready", || {
        let answer = raw(
            daemon.url(),
            b"GET /readyz HTTP/1.1
Host: localhost
Connection: close

",
        );
        answer.starts_with("HTTP/1.1 503") && answer.contains("no inodes are left")
    });
    fs::remove_dir_all(&fillers).expect("it is there");
    server.get(one).expect(200);
    server.post(small, b"x").expect(200);
}

/// Writes `what` near both ends of a file right after its file system's clock moved, which keeps whole seconds: most of the
/// second is left for what must be noticed in it.
fn write_early_in_a_second(file: &Path, what: &[u8]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    std::thread::sleep(Duration::from_millis(1020 - u64::from(now.subsec_millis())));
    write_near_both_ends(file, what);
    let found = fs::metadata(file).expect("it is there");
    assert_eq!((found.mtime_nsec(), found.ctime_nsec()), (0, 0), "it keeps finer times");
}

fn write_near_both_ends(path: &Path, what: &[u8]) {
    let file = fs::File::options().write(true).open(path).expect("it can be written");
    let end = file.metadata().expect("it is open").len();
    for offset in [100, end - 100] {
        file.write_all_at(what, offset).expect("there is disk space");
    }
}

fn client(daemon: &Daemon, file: &Path, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", daemon.url(), "--slice-size", "256K", "--quiet"]).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Whether a push succeeded, and what it said.
fn ended(output: &Output) -> (bool, String) {
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// ext4 keeps whole seconds where its inodes have no room for more, as ext3 and HFS+ do.
fn disk_of_whole_seconds() -> Mount {
    Mount::new(&["mkfs.ext4", "-q", "-I", "128"], 64 << 20)
}

#[test]
fn on_a_disk_of_whole_seconds_a_change_in_the_second_of_the_last_push_is_noticed() {
    needs_root!("to mount file systems");
    let (mount, daemon) = (disk_of_whole_seconds(), Daemon::start());
    for len in [1000, 2 << 20] {
        let name = format!("f{len}");
        let file = data::file(&mount.path(), &name, 1, len);
        write_early_in_a_second(&file, b"old");
        let (pushed, said) = ended(&client(&daemon, &file, &[]).output().unwrap());
        write_near_both_ends(&file, b"new");
        assert!(pushed, "{said}");
        assert!(!data::same(&file, &daemon.finished(&name)), "it was changed after all was stored");
        let (pushed, said) = ended(&client(&daemon, &file, &[]).output().unwrap());
        assert!(!pushed && said.contains("--replace"), "{said}");
        let (pushed, said) = ended(&client(&daemon, &file, &["--replace"]).output().unwrap());
        assert!(pushed && data::same(&file, &daemon.finished(&name)), "{said}");
    }
}

#[test]
fn on_a_disk_of_whole_seconds_a_change_in_the_second_in_which_a_push_began_is_never_mixed() {
    needs_root!("to mount file systems");
    let (mount, daemon) = (disk_of_whole_seconds(), Daemon::start());
    let file = data::file(&mount.path(), "f", 1, 8 << 20);
    write_early_in_a_second(&file, b"old");
    let old = fs::read(&file).unwrap();
    let mut child = client(&daemon, &file, &["--limit-rate", "4M"]).spawn().unwrap();
    eventually("slices are stored", || {
        daemon.log().matches("f: slice ").count() > 2 || child.try_wait().unwrap().is_some()
    });
    write_near_both_ends(&file, b"new");
    let (pushed, said) = ended(&child.wait_with_output().unwrap());
    // A slow machine may write only after all was read.
    if pushed {
        assert!(fs::read(daemon.finished("f")).unwrap() == old, "it never was like that");
    } else {
        assert!(said.contains("changed while it was being pushed"), "{said}");
        assert!(!daemon.finished("f").exists());
    }
    let (pushed, said) = ended(&client(&daemon, &file, &["--replace"]).output().unwrap());
    assert!(pushed && data::same(&file, &daemon.finished("f")), "{said}");
}
