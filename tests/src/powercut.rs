//! Cutting the power under a running program: a file system on a loop device whose image can be copied at any moment.
//!
//! A copy holds what had reached the device then; what the kernel still kept in memory is not in it. That is what a power
//! cut leaves, but for a drive that loses its own cache or tears sectors: neither is modelled here. The image lies on an XFS
//! with reflinks, so that a copy is one ioctl, of one instant, and the loop device reads and writes it past the page cache.
//!
//! A copy is mounted and looked at under the kernel that wrote it, whose boot id would say that nothing was lost. So
//! programs that are to see another boot get that file of /proc replaced, in a mount namespace of their own.

use crate::mount::{Mount, make_image, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A type of file system.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// XFS with reflinks.
    Xfs,
    /// Btrfs.
    Btrfs,
}

impl Kind {
    fn mkfs(self) -> &'static [&'static str] {
        match self {
            Kind::Ext4 => &["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Kind::Xfs => &["mkfs.xfs", "-q", "-m", "reflink=1"],
            Kind::Btrfs => &["mkfs.btrfs", "-q"],
        }
    }

    /// Metadata that nobody synced stays in memory for a minute, so that more can be lost.
    fn options(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Btrfs => "commit=60",
            Kind::Xfs => "noatime",
        }
    }

    /// Copies share one file system id, which XFS refuses to mount twice unless told.
    fn copy_options(self) -> &'static str {
        match self {
            Kind::Xfs => "loop,nouuid",
            Kind::Ext4 | Kind::Btrfs => "loop",
        }
    }
}

/// A file system whose power can be cut.
pub struct Machine {
    kind: Kind,
    // Dropped in this order: the file system lies on the host.
    file_system: Mount,
    host: Mount,
}

impl Machine {
    /// Makes a file system of `size` bytes.
    pub fn new(kind: Kind, size: u64) -> Machine {
        let host = Mount::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], 64 << 30);
        let image = host.path().join("image");
        make_image(&image, kind.mkfs(), size);
        let device = run(Command::new("losetup").args(["--direct-io=on", "--show", "--find"]).arg(&image));
        let device = PathBuf::from(device.trim());
        let file_system = Mount::of_image(&device, kind.options());
        // Goes with the mount.
        run(Command::new("losetup").arg("--detach").arg(&device));
        run(Command::new("sync").arg("--file-system").arg(file_system.path()));
        Machine { kind, file_system, host }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.file_system.path()
    }

    /// Cuts the power for a copy of it: what was on the device at this moment. It goes when this machine goes.
    pub fn cut(&self, number: u64) -> Cut {
        let image = self.host.path().join(format!("cut{number}"));
        run(Command::new("cp").arg("--reflink=always").arg(self.host.path().join("image")).arg(&image));
        Cut { kind: self.kind, image }
    }
}

/// What a power cut left.
pub struct Cut {
    kind: Kind,
    image: PathBuf,
}

impl Cut {
    /// Mounts it, as the next boot would.
    pub fn mount(&self) -> Mount {
        Mount::of_image(&self.image, self.kind.copy_options())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // The host goes with all that is on it; this only spares its disk space.
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A command line before that of a program which makes it see another boot of the kernel. `scratch` is a folder for a file.
pub fn another_boot(scratch: &Path) -> Vec<String> {
    let boot_id = scratch.join("boot_id");
    std::fs::write(&boot_id, "01234567-89ab-cdef-0123-456789abcdef\n").expect("the file can be written");
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    ["unshare", "--mount", "sh", "-c", script, &boot_id.to_string_lossy()].map(str::to_owned).to_vec()
}
