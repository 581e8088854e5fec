//! A daemon whose finished files go to a store of objects.

use crate::daemon::Daemon;
use crate::process::signal_program;
use crate::seaweed::{StoreProxy, shared, write_credentials};
use crate::{data, programs};
use bigup_core::storage::objects::{Listed, Objects};
use nix::sys::signal::Signal;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

/// A daemon whose finished files go to a bucket of its own, through a proxy.
pub struct Setup {
    /// The daemon.
    pub daemon: Daemon,
    /// The proxy before the store.
    pub proxy: StoreProxy,
    /// The store.
    pub objects: Objects,
    /// The bucket.
    pub bucket: String,
    /// The file with the credentials.
    pub credentials: PathBuf,
    _folder: tempfile::TempDir,
}

impl Setup {
    /// Starts a daemon with further arguments.
    pub fn new(arguments: &[&str]) -> Setup {
        Setup::starting(Daemon::with, arguments)
    }

    /// The same on the data folder `data`, on another file system maybe.
    pub fn on(data: &Path, arguments: &[&str]) -> Setup {
        Setup::starting(|all| Daemon::with_data(data, all), arguments)
    }

    fn starting(start: impl FnOnce(&[&str]) -> Daemon, arguments: &[&str]) -> Setup {
        static BUCKETS: AtomicU64 = AtomicU64::new(0);
        let store = shared();
        let bucket = format!("bucket{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        store.make_bucket(&bucket);
        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials");
        write_credentials(&credentials, true);
        let proxy = StoreProxy::start(store);
        let options = Setup::options(&bucket, proxy.endpoint(), &credentials);
        let all: Vec<&str> = options.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let daemon = start(&all);
        let objects = store.objects(&bucket, &credentials);
        Setup { daemon, proxy, objects, bucket, credentials, _folder: folder }
    }

    /// The options of the store.
    pub fn options(bucket: &str, endpoint: &str, credentials: &Path) -> [String; 4] {
        [
            format!("--store=s3://{bucket}/p"),
            format!("--s3-endpoint={endpoint}"),
            format!("--s3-credentials-file={}", credentials.display()),
            "--merger-idle=2s".to_owned(),
        ]
    }

    /// A push.
    pub fn push(&self, arguments: &[&str]) -> Command {
        let mut command = programs::cli();
        command.arg("push").args(["--url", self.daemon.url(), "--slice-size", "4M"]).args(arguments);
        command
    }

    /// A push that succeeds.
    pub fn pushed(&self, file: &Path, options: &[&str]) -> Output {
        let output = self.push(&[&[text(file)], options].concat()).output().unwrap();
        assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Status and body of a request for `/content/PATH`.
    pub fn content(&self, path: &str, options: &[&str]) -> (String, Vec<u8>) {
        let url = format!("{}/content/{path}", self.daemon.url());
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "60", "-w", "\n%{http_code}"])
            .args(options)
            .arg(url)
            .output();
        let mut body = output.expect("curl can be started").stdout;
        let status = String::from_utf8(body.split_off(body.len() - 3)).unwrap();
        body.pop();
        (status, body)
    }

    /// All keys in the bucket, those of notes too.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![];
        let each = |listed: Listed| {
            names.push(listed.name().to_owned());
            ControlFlow::Continue(())
        };
        self.objects.list("", "", false, each).unwrap();
        names
    }

    /// The finished file is exact, and nothing else is left: no spool, no section, no upload of parts.
    pub fn is_exact_and_alone(&self, name: &str, file: &Path) {
        let fetched = self.daemon.scratch().join("fetched");
        let (status, _) = self.content(name, &["-o", text(&fetched)]);
        assert_eq!(status, "200", "{name}");
        assert!(data::same(&fetched, file), "{name} is not exact");
        self.daemon.eventually_clean();
        assert_eq!(self.objects.unfinished().unwrap(), Vec::<String>::new(), "uploads of parts are left");
        let name: bigup_core::protocol::name::FileName = bigup_core::protocol::name::FileName::new(name).unwrap();
        let found = self.objects.find(&name).unwrap().expect("it is there");
        assert_eq!(found.facts.expect("they are noted").digest.to_string(), data::digest(file));
    }

    /// The number of notes, and that of objects which point at one cannot differ.
    pub fn notes(&self) -> usize {
        self.objects.notes().unwrap().len()
    }

    /// A file to be pushed.
    pub fn file(&self, seed: u64, len: u64) -> PathBuf {
        data::file(&self.daemon.scratch(), &format!("f{seed}"), seed, len)
    }

    /// Kills the merger at work on `name`, if one is.
    pub fn killer(&self, name: &str) -> impl Fn() + Send + Sync + 'static {
        let lock = self.daemon.data().join("tmp").join(name).join("merger.lock");
        move || {
            let pid = std::fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse().ok());
            let _ = pid.is_some_and(|pid| signal_program(pid, "bigup-merger", Signal::SIGKILL));
        }
    }

    /// Bytes that the file so far of an upload has, and takes on the disk. 0 if there is none.
    pub fn merged(&self, name: &str) -> (u64, u64) {
        let found = self.daemon.data().join("tmp").join(name).join("merged").metadata();
        found.map_or((0, 0), |found| (found.len(), found.blocks() * 512))
    }

    /// Bytes that the folder of an unfinished upload takes on the disk. 0 if there is none.
    pub fn on_disk(&self, name: &str) -> u64 {
        let folder = self.daemon.data().join("tmp").join(name);
        let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
        found.filter_map(|entry| entry.metadata().ok()).map(|found| found.blocks() * 512).sum()
    }

    /// Ends the multipart upload of an unfinished upload, as another client of the store may.
    pub fn abort(&self, name: &str) {
        let noted = std::fs::read(self.daemon.data().join("tmp").join(name).join("object.json")).expect("it is there");
        let noted: serde_json::Value = serde_json::from_slice(&noted).expect("it is JSON");
        let text = |key: &str| noted[key].as_str().expect("it is text").to_owned();
        shared().abort(&self.bucket, &text("key"), &text("upload_id"));
    }

    /// The error that info.ini tells of an upload.
    pub fn last_error(&self, name: &str) -> String {
        self.daemon.info(name, "last_error").unwrap_or_default()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
