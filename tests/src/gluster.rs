//! A file system of two machines: a GlusterFS volume of two bricks, mounted twice. All of it is on this machine, and its
//! servers are in a network namespace of their own. Needs root, and the packages glusterfs-server, glusterfs-client and
//! iproute2.

use crate::mount::run;
use crate::process::{PATIENCE, eventually, kill_9};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Address of the servers in their namespace. Bricks must not be at a loopback address.
const ADDRESS: &str = "10.79.0.1";

/// Name of the volume.
const VOLUME: &str = "bigup";

/// Caches of a client that the document switches off.
const UNCACHED: [&str; 4] = ["write-behind", "quick-read", "io-cache", "stat-prefetch"];

/// Longest time for a command of its own.
const SLOW: Duration = PATIENCE;

/// A volume and its mounts, for as long as this lives.
pub struct Gluster {
    folder: tempfile::TempDir,
    namespace: String,
    daemon: Child,
}

impl Gluster {
    /// Starts the servers, makes the volume, and mounts it twice with these options of mount(8).
    ///
    /// # Panics
    /// Something of that fails; says what.
    pub fn start(options: &str) -> Gluster {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("bigup-gluster-{}-{n}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &namespace]));
        run(Command::new("ip").args(["-n", &namespace, "link", "set", "lo", "up"]));
        run(Command::new("ip").args(["-n", &namespace, "address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]));
        let daemon = daemon(&namespace, folder.path());
        let gluster = Gluster { folder, namespace, daemon };
        eventually("glusterd responds", || gluster.command(&["volume", "info"]).output().unwrap().status.success());
        let bricks = ["brick-a", "brick-b"].map(|brick| {
            let path = gluster.folder.path().join(brick);
            fs::create_dir(&path).expect("the folder can be made");
            format!("{ADDRESS}:{}", path.display())
        });
        run(&mut gluster.command(&["volume", "create", VOLUME, "replica", "2", &bricks[0], &bricks[1], "force"]));
        for option in UNCACHED {
            run(&mut gluster.command(&["volume", "set", VOLUME, &format!("performance.{option}"), "off"]));
        }
        run(&mut gluster.command(&["volume", "start", VOLUME]));
        for (end, path) in gluster.mounts().iter().enumerate() {
            fs::create_dir(path).expect("the folder can be made");
            let log =
                format!("log-file={}/mount-{end}.log{}{options}", gluster.folder.path().display(), comma(options));
            let source = format!("{ADDRESS}:/{VOLUME}");
            run(gluster.inside("mount").args(["-t", "glusterfs", "-o", &log, &source]).arg(path));
        }
        gluster
    }

    /// The two places where it is mounted.
    pub fn mounts(&self) -> [PathBuf; 2] {
        ["a", "b"].map(|end| self.folder.path().join(end))
    }

    /// A command of this user in the servers' namespace, which sees the mounts of all.
    fn inside(&self, program: &str) -> Command {
        inside(&self.namespace, program)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.inside("gluster");
        command.args(["--mode=script", &format!("--timeout={}", SLOW.as_secs())]);
        command.arg(format!("--glusterd-sock={}/state/socket", self.folder.path().display())).args(arguments);
        command
    }
}

fn comma(options: &str) -> &'static str {
    if options.is_empty() { "" } else { "," }
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

fn daemon(namespace: &str, folder: &Path) -> Child {
    let log = File::create(folder.join("glusterd.out")).expect("the log can be made");
    let state = folder.join("state");
    fs::create_dir(&state).expect("the folder can be made");
    let volfile = folder.join("glusterd.vol");
    // As the package's own, with its state in the test's folder.
    let text = format!(
        "volume management\n type mgmt/glusterd\n option working-directory {0}\n option run-directory {0}\n \
         option glusterd-sockfile {0}/socket\n option transport-type socket\n option transport.address-family inet\nend-volume\n",
        state.display()
    );
    fs::write(&volfile, text).expect("the file can be written");
    let mut command = inside(namespace, "glusterd");
    command.arg("--no-daemon").arg("-f").arg(&volfile).arg("-p").arg(folder.join("glusterd.pid"));
    command.arg("-l").arg(folder.join("glusterd.log")).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("the log is open")).stderr(log);
    command.spawn().unwrap_or_else(|e| panic!("nsenter cannot be started ({e}): tests/run installs what is needed"))
}

impl Drop for Gluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- glusterd\n{}---",
                fs::read_to_string(self.folder.path().join("glusterd.out")).unwrap_or_default()
            );
        }
        for path in self.mounts() {
            let _ = Command::new("umount").arg("--lazy").arg(path).output();
        }
        let _ = self.command(&["volume", "stop", VOLUME, "force"]).output();
        kill_9(&mut self.daemon);
        let pids = Command::new("ip").args(["netns", "pids", &self.namespace]).output();
        for pid in pids.iter().flat_map(|found| {
            String::from_utf8_lossy(&found.stdout).into_owned().lines().map(str::to_owned).collect::<Vec<_>>()
        }) {
            // Bricks and the programs that keep them alike, all in the namespace of this test.
            let _ = Command::new("kill").args(["-9", &pid]).output();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).output();
    }
}
