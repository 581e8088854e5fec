//! File systems of a test's own, mounted from sparse image files or in memory. Needs root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system, mounted for as long as this lives.
pub struct Mount {
    folder: tempfile::TempDir,
}

impl Mount {
    /// Makes one of `size` bytes in an image file by the program and arguments of `mkfs`, and mounts it.
    pub fn new(mkfs: &[&str], size: u64) -> Mount {
        Mount::new_in(&std::env::temp_dir(), mkfs, size)
    }

    /// The same, with the image file in a folder of the caller's.
    pub fn new_in(folder: &Path, mkfs: &[&str], size: u64) -> Mount {
        let folder = tempfile::tempdir_in(folder).expect("a temporary folder can be made");
        let image = folder.path().join("image");
        make_image(&image, mkfs, size);
        let mount = Mount::empty(folder);
        mount_image(&image, "loop", &mount.path());
        mount
    }

    /// The same for a file system that a program of its own serves (FUSE), of the type that mount(8) knows it by.
    pub fn served(mkfs: &[&str], size: u64, kind: &str) -> Mount {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let image = folder.path().join("image");
        make_image(&image, mkfs, size);
        let mount = Mount::empty(folder);
        run(Command::new("mount").args(["-t", kind, "-o", "loop"]).arg(&image).arg(mount.path()));
        mount
    }

    /// Mounts a file system of this type that needs no device.
    pub fn in_memory(kind: &str, options: &str) -> Mount {
        let mount = Mount::empty(tempfile::tempdir().expect("a temporary folder can be made"));
        run(Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(mount.path()));
        mount
    }

    /// Mounts an image file, or the loop device of one, that somebody else keeps.
    pub fn of_image(image: &Path, options: &str) -> Mount {
        let mount = Mount::empty(tempfile::tempdir().expect("a temporary folder can be made"));
        mount_image(image, options, &mount.path());
        mount
    }

    fn empty(folder: tempfile::TempDir) -> Mount {
        let mount = Mount { folder };
        std::fs::create_dir(mount.path()).expect("the folder can be made");
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Mergers leave by themselves; one of a failed test may hold the mount a moment longer.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} cannot be unmounted", self.path().display());
        }
    }
}

/// A folder that is mounted at another place too, for as long as this lives.
pub struct Bind {
    point: PathBuf,
}

impl Bind {
    /// Mounts `folder` at `point`, a folder that is there.
    pub fn new(folder: &Path, point: &Path) -> Bind {
        run(Command::new("mount").arg("--bind").arg(folder).arg(point));
        Bind { point: point.to_owned() }
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.point).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} cannot be unmounted", self.point.display());
        }
    }
}

/// Makes a file system of `size` bytes in a sparse file.
pub fn make_image(image: &Path, mkfs: &[&str], size: u64) {
    File::create(image).and_then(|file| file.set_len(size)).expect("a sparse file can be made");
    run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(image));
}

fn mount_image(image: &Path, options: &str, point: &Path) {
    run(Command::new("mount").args(["-o", options]).arg(image).arg(point));
}

/// Runs a program of the system and gives what it printed.
///
/// # Panics
/// It cannot be started, or fails.
pub fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|e| {
        panic!(
            "{program} cannot be started ({e}): these tests need the packages xfsprogs, btrfs-progs, e2fsprogs, mount"
        )
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
