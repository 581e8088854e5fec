//! SeaweedFS, an S3-compatible store, for all tests of a process, and a proxy before it that disturbs requests.
//!
//! It is the program `weed` beside `BIGUP_PYTHON`, from `tests/clients/requirements.txt`. [`Cluster`] is a store of three
//! servers that hold bytes.

use crate::accept::Accept;
use crate::process::{eventually, kill_9, within};
use bigup_core::storage::objects::{ObjectSettings, Objects};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The credentials that it takes.
const KEY: &str = "ciaccess";
const SECRET: &str = "cisecret123";

/// Time that it may take to start.
const START: Duration = Duration::from_secs(120);

/// Ports that it listens on, one after the other: eight of its own, and two of each further server of a cluster.
const PORTS: u16 = 12;

/// A running store.
pub struct Seaweed {
    folder: tempfile::TempDir,
    port: u16,
}

/// Servers of a cluster that hold bytes and can be killed; another one is part of the process of the master.
const KILLABLE: [u16; 2] = [0, 1];

/// A store of three servers that hold bytes, each chunk on two of them.
pub struct Cluster {
    /// The store.
    pub seaweed: Seaweed,
    servers: [Option<Child>; KILLABLE.len()],
}

/// The store of this process, started if it is the first use. It ends with the process.
pub fn shared() -> &'static Seaweed {
    static SHARED: OnceLock<Seaweed> = OnceLock::new();
    SHARED.get_or_init(Seaweed::start)
}

impl Seaweed {
    fn start() -> Seaweed {
        Seaweed::start_in(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    /// Starts a store that keeps all in `folder`, and ends with the process.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_in(folder: tempfile::TempDir) -> Seaweed {
        Seaweed::with(folder, &[])
    }

    fn with(folder: tempfile::TempDir, arguments: &[&str]) -> Seaweed {
        let port = free_ports();
        let identity = format!(
            r#"{{"identities":[{{"name":"ci","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],
                "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        let config = folder.path().join("s3.json");
        std::fs::write(&config, identity).expect("the file can be written");
        let mut command = command(folder.path(), &config, port);
        command.args(arguments);
        // A process dies with the thread that started it, which must not be the thread of a test.
        std::thread::spawn(move || {
            let mut child = command.spawn().expect("setpriv of util-linux and weed can be started");
            let ended = child.wait().expect("it was started");
            eprintln!("SeaweedFS ended: {ended}");
        });
        let log = folder.path().join("log");
        let seaweed = Seaweed { folder, port };
        let answers = || {
            ureq::get(format!("{}/", seaweed.endpoint())).config().http_status_as_error(false).build().call().is_ok()
        };
        within(START, &format!("SeaweedFS starts; its log is {}", log.display()), answers);
        seaweed
    }

    /// Port of the service, on all addresses of this machine if it is a cluster.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of the service.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn bucket(&self, name: &str) -> Bucket {
        let url = self.endpoint().parse().expect("it is a URL");
        Bucket::new(url, UrlStyle::Path, name.to_owned(), "us-east-1").expect("it is a name")
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        let (bucket, credentials) = (self.bucket(name), credentials());
        eventually("the bucket can be made", || {
            let url = bucket.create_bucket(&credentials).sign(Duration::from_secs(60));
            ureq::put(url.as_str()).send_empty().is_ok()
        });
    }

    /// Removes a bucket with all that is in it, and gives the disk space back.
    ///
    /// # Panics
    /// It cannot be removed.
    pub fn remove_bucket(&self, name: &str) {
        let url = self.bucket(name).delete_bucket(&credentials()).sign(Duration::from_secs(60));
        ureq::delete(url.as_str()).call().expect("the bucket can be removed");
    }

    /// Ends a multipart upload.
    pub fn abort(&self, bucket: &str, key: &str, id: &str) {
        let (bucket, credentials) = (self.bucket(bucket), credentials());
        let url = bucket.abort_multipart_upload(Some(&credentials), key, id).sign(Duration::from_secs(60));
        ureq::delete(url.as_str()).call().expect("the store ends it");
    }

    /// The objects of `s3://BUCKET/p`, as bigup sees them. The credentials are read from `file`.
    pub fn objects(&self, bucket: &str, file: &Path) -> Objects {
        let settings = ObjectSettings {
            url: format!("s3://{bucket}/p").parse().expect("it is a store"),
            endpoint: Some(self.endpoint()),
            region: "us-east-1".to_owned(),
            path_style: true,
            credentials_file: Some(file.to_owned()),
            parts_at_once: 1,
        };
        Objects::new(settings).expect("the settings are right")
    }
}

impl Cluster {
    /// Starts a cluster that keeps all in `folder`. It listens on all addresses of this machine.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_in(folder: tempfile::TempDir) -> Cluster {
        let arguments = ["-master.defaultReplication=001", "-ip.bind=0.0.0.0"];
        let mut cluster = Cluster { seaweed: Seaweed::with(folder, &arguments), servers: [None, None] };
        KILLABLE.iter().for_each(|server| cluster.run(*server));
        let master = format!("http://127.0.0.1:{}/dir/status", cluster.seaweed.port + 1);
        within(START, "the master knows three servers", || {
            let text = ureq::get(&master).call().ok().and_then(|mut found| found.body_mut().read_to_string().ok());
            text.is_some_and(|text| text.matches("\"PublicUrl\"").count() == 1 + KILLABLE.len())
        });
        cluster
    }

    /// Kills a server, 0 or 1.
    pub fn kill(&mut self, server: u16) {
        self.servers[usize::from(server)].take().iter_mut().for_each(kill_9);
    }

    /// Starts a server, which was killed maybe.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn run(&mut self, server: u16) {
        let (folder, first) = (self.seaweed.folder.path(), self.seaweed.port);
        let data = folder.join(format!("volumes-{server}"));
        std::fs::create_dir_all(&data).expect("the folder can be made");
        let log = std::fs::File::options().create(true).append(true).open(folder.join(format!("log-{server}")));
        let log = log.expect("the log can be made");
        let port = first + 8 + 2 * server;
        let mut command = Command::new(weed());
        command.arg("volume").arg(format!("-dir={}", data.display())).args(["-max=100", "-ip=127.0.0.1"]);
        command.arg(format!("-port={port}")).arg(format!("-port.grpc={}", port + 1));
        command.arg(format!("-master=127.0.0.1:{}.{}", first + 1, first + 2));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be copied")).stderr(log);
        self.servers[usize::from(server)] = Some(command.spawn().expect("weed can be started"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        KILLABLE.iter().for_each(|server| self.kill(*server));
    }
}

/// Writes a file with the right credentials, or with wrong ones.
pub fn write_credentials(file: &Path, are_right: bool) {
    let secret = if are_right { SECRET } else { "wrong" };
    let text = format!("aws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, file)).expect("the file can be written");
}

/// Variables of the environment by which other programs get the credentials.
pub fn variables() -> [(&'static str, &'static str); 3] {
    [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", "us-east-1")]
}

fn credentials() -> Credentials {
    Credentials::new(KEY, SECRET)
}

fn weed() -> PathBuf {
    let python = std::env::var_os("BIGUP_PYTHON").map(PathBuf::from).unwrap_or_default();
    let weed = python.with_file_name("weed");
    assert!(
        weed.exists(),
        "{} is not there: install tests/clients/requirements.txt in the virtual environment of BIGUP_PYTHON; tests/run \
         does that",
        weed.display()
    );
    weed
}

fn command(folder: &Path, config: &Path, port: u16) -> Command {
    let log = std::fs::File::create(folder.join("log")).expect("the log can be made");
    let errors = log.try_clone().expect("a descriptor can be copied");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(weed()).arg("server");
    command.arg(format!("-dir={}", folder.display())).args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
    // Its default tells an outside host of itself.
    command.args(["-master.telemetry=false", "-master.volumeSizeLimitMB=128", "-volume.max=400", "-filer", "-s3"]);
    let names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"];
    for (number, name) in (1..).zip(names) {
        command.arg(format!("-{name}={}", port + number));
    }
    command.arg(format!("-s3.port={port}")).arg(format!("-s3.port.grpc={}", port + 7));
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]).arg(format!("-s3.config={}", config.display()));
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command
}

/// The first of some ports in a row that nobody listens on.
fn free_ports() -> u16 {
    let seed = std::process::id();
    for attempt in 0..200 {
        let first = 20_000 + u16::try_from((seed * 37 + attempt * 101) % 10_000).expect("it is below") / PORTS * PORTS;
        let all: Result<Vec<_>, _> =
            (first..first + PORTS).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if all.is_ok() {
            return first;
        }
    }
    panic!("no {PORTS} free ports in a row");
}

/// A request on its way to the store.
#[derive(Clone, Debug)]
pub struct Passing {
    /// Its number among those of its program, from 0.
    pub number: u64,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The program that makes it, like `bigup-merger/0.1.0`.
    pub program: String,
}

impl Passing {
    /// True if a merger makes it.
    pub fn is_of_merger(&self) -> bool {
        self.program.starts_with("bigup-merger")
    }

    /// True if it stores a part.
    pub fn is_part(&self) -> bool {
        self.method == "PUT" && self.target.contains("partNumber=")
    }

    /// True if it completes an upload of parts.
    pub fn is_completion(&self) -> bool {
        self.method == "POST" && self.target.contains("uploadId=")
    }
}

/// The disturbance of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturb {
    /// None.
    Not,
    /// The store never sees it, and its connection ends.
    Before,
    /// The store answers, and its connection ends before that is told.
    After,
    /// This status and code are the answer; the store never sees it.
    Answer(u16, &'static str),
    /// The store answers, with another ETag.
    OtherTag,
}

type After = dyn Fn() + Send + Sync;
type Decide = dyn Fn(&Passing) -> Disturb + Send + Sync;

/// A proxy before the store.
pub struct StoreProxy {
    accept: Accept,
    shared: Arc<ProxyState>,
}

struct ProxyState {
    to: String,
    decide: Mutex<Arc<Decide>>,
    /// Called once the store has answered a request that is disturbed after it.
    after: Mutex<Arc<After>>,
    mergers: AtomicU64,
    others: AtomicU64,
}

impl StoreProxy {
    /// Starts a proxy that disturbs nothing.
    pub fn start(store: &Seaweed) -> StoreProxy {
        let shared = Arc::new(ProxyState {
            to: format!("127.0.0.1:{}", store.port),
            decide: Mutex::new(Arc::new(|_: &Passing| Disturb::Not)),
            after: Mutex::new(Arc::new(|| ())),
            mergers: AtomicU64::new(0),
            others: AtomicU64::new(0),
        });
        let of_listener = Arc::clone(&shared);
        let accept = Accept::start(move |client| {
            let state = Arc::clone(&of_listener);
            // The end of a connection in the middle is nothing new here.
            std::thread::spawn(move || drop(state.serve(client)));
        });
        StoreProxy { accept, shared }
    }

    /// URL of the service.
    pub fn endpoint(&self) -> &str {
        self.accept.url()
    }

    /// Has `decide` tell the disturbance of each request from now on. Those of mergers are counted anew.
    pub fn disturb(&self, decide: impl Fn(&Passing) -> Disturb + Send + Sync + 'static) {
        self.shared.mergers.store(0, Ordering::SeqCst);
        *self.shared.decide.lock().expect("nothing panics here") = Arc::new(decide);
    }

    /// Has `act` be called whenever the store has answered a request that is disturbed after it.
    pub fn then(&self, act: impl Fn() + Send + Sync + 'static) {
        *self.shared.after.lock().expect("nothing panics here") = Arc::new(act);
    }

    /// Number of requests of mergers since the last [`StoreProxy::disturb`].
    pub fn of_mergers(&self) -> u64 {
        self.shared.mergers.load(Ordering::SeqCst)
    }
}

impl ProxyState {
    /// Passes on the requests of a connection, one after the other.
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        loop {
            let (head, mut rest) = read_head(&mut client)?;
            let mut words = head.split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let program = header(&head, "user-agent").unwrap_or_default();
            let counter = if program.starts_with("bigup-merger") { &self.mergers } else { &self.others };
            let passing = Passing {
                number: counter.fetch_add(1, Ordering::SeqCst),
                method: method.to_owned(),
                target: target.to_owned(),
                program,
            };
            let len: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            read_to(&mut client, &mut rest, len)?;
            let decide = Arc::clone(&self.decide.lock().expect("nothing panics here"));
            let disturb = decide(&passing);
            match disturb {
                Disturb::Before => return Ok(()),
                Disturb::Answer(status, code) => {
                    let body = format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
                    // The answer to a HEAD has no body.
                    let body = if method == "HEAD" { String::new() } else { body };
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    client.write_all(answer.as_bytes())?;
                    continue;
                }
                Disturb::Not | Disturb::After | Disturb::OtherTag => {}
            }
            let mut server = TcpStream::connect(&self.to)?;
            let one = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            server.write_all(one.as_bytes())?;
            server.write_all(&rest)?;
            let (answer, mut body) = read_head(&mut server)?;
            server.read_to_end(&mut body)?;
            if disturb == Disturb::After {
                let after = Arc::clone(&self.after.lock().expect("nothing panics here"));
                after();
                return Ok(());
            }
            let answer = match disturb {
                Disturb::OtherTag => with_other_tag(&answer),
                _ => answer,
            };
            client.write_all(answer.as_bytes())?;
            client.write_all(&body)?;
            // Its length may be told by the end of the connection.
            if header(&answer, "content-length").is_none() || header(&answer, "connection").is_some() {
                return Ok(());
            }
        }
    }
}

fn with_other_tag(head: &str) -> String {
    let is_tag = |line: &str| line.to_ascii_lowercase().starts_with("etag:");
    let lines =
        head.split("\r\n").map(|line| if is_tag(line) { "ETag: \"00112233445566778899aabbccddeeff\"" } else { line });
    lines.collect::<Vec<_>>().join("\r\n")
}

/// A head with its empty line, and the bytes that came behind it.
fn read_head(from: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = vec![];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        let mut piece = [0; 16 << 10];
        match from.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            got => bytes.extend_from_slice(&piece[..got]),
        }
    }
}

fn read_to(from: &mut TcpStream, bytes: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
    let have = bytes.len().min(len);
    bytes.resize(len, 0);
    from.read_exact(&mut bytes[have..])
}

fn header(head: &str, wanted: &str) -> Option<String> {
    let mut pairs = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
}
