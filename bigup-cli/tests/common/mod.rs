//! A bigup server in memory, for the client's tests: enough HTTP/1.1 to keep connections, enough of the protocol to
//! begin, go on, compare and finish. A hook sees every request first and may answer in its place.
//!
//! It uses the words of `bigup_core::protocol`. The client's code and the real daemon do not come in here.

#![allow(dead_code, unreachable_pub)]

use bigup_core::protocol::digest::{Digest, SliceDigest, of_bytes, of_slice};
use bigup_core::protocol::native::{ListResponse, SliceResponse, UploadResponse, UploadStatus};
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::ranges::SliceRanges;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// wine's error for a program that ended before a single instruction of it ran, which happens on a busy machine
/// (`STATUS_INTERNAL_ERROR` of its `NtCreateUserProcess`).
const NOT_STARTED: i32 = 1359;

/// What `start` has for a program that it starts, under wine at the third try at the latest.
///
/// # Panics
/// It cannot be started.
pub fn started<T>(mut start: impl FnMut() -> std::io::Result<T>) -> T {
    let mut tries = 1;
    loop {
        match start() {
            Err(e) if cfg!(windows) && e.raw_os_error() == Some(NOT_STARTED) && tries < 3 => tries += 1,
            started => return started.expect("the program can be started"),
        }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub query: HashMap<String, String>,
    /// The header of that name.
    pub authorization: Option<String>,
    pub body: Vec<u8>,
}

/// What goes back.
pub enum Reply {
    Json(u16, Value),
    /// With `Retry-After`.
    Later(u16, Value, u64),
    Raw(u16, &'static str),
    /// To another place.
    Redirect(String),
    /// The connection ends without an answer.
    Drop,
}

#[derive(Default)]
pub struct Upload {
    pub source: String,
    pub plan: Plan,
    pub slices: BTreeMap<u64, Vec<u8>>,
    /// Slices of another source may be among them.
    pub mixed: bool,
}

pub struct Finished {
    pub source: String,
    pub bytes: Vec<u8>,
}

/// What the server has.
#[derive(Default)]
pub struct State {
    pub uploads: BTreeMap<String, Upload>,
    pub finished: BTreeMap<String, Finished>,
    pub requests: Vec<Request>,
}

type Hook = dyn Fn(&Request, &mut State) -> Option<Reply> + Send + Sync;

pub struct Mock {
    pub url: String,
    pub state: Arc<Mutex<State>>,
}

impl Request {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    pub fn is_post(&self) -> bool {
        self.method == "POST"
    }

    /// Of the slice with this id.
    pub fn is_slice(&self, id: u64) -> bool {
        self.is_post() && self.number("slice_id") == Some(id)
    }
}

impl Mock {
    pub fn new() -> Mock {
        Mock::with_hook(|_, _| None)
    }

    pub fn with_hook(hook: impl Fn(&Request, &mut State) -> Option<Reply> + Send + Sync + 'static) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (state, hook): (Arc<Mutex<State>>, Arc<Hook>) = (Arc::default(), Arc::new(hook));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, hook) = (Arc::clone(&shared), Arc::clone(&hook));
                thread::spawn(move || serve(stream, &state, &*hook));
            }
        });
        Mock { url, state }
    }

    /// As if somebody had pushed some slices of `bytes` from `source` before.
    pub fn holding(&self, name: &str, source: &str, bytes: &[u8], slice_size: u64, ids: &[u64]) {
        let plan = Plan::new(None, Some(slice_size), Some(bytes.len() as u64)).unwrap();
        let slice = |id: &u64| {
            let from = (id * slice_size) as usize;
            (*id, bytes[from..bytes.len().min(from + slice_size as usize)].to_vec())
        };
        let slices = ids.iter().map(slice).collect();
        let upload = Upload { source: source.to_owned(), plan, slices, mixed: false };
        self.state.lock().unwrap().uploads.insert(name.to_owned(), upload);
    }

    pub fn finished(&self, name: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().finished.get(name).map(|finished| finished.bytes.clone())
    }

    pub fn finish(&self, name: &str, bytes: &[u8]) {
        let finished = Finished { source: "earlier".to_owned(), bytes: bytes.to_vec() };
        self.state.lock().unwrap().finished.insert(name.to_owned(), finished);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Ids of the slices that were sent, in ascending order, with doubles.
    pub fn slices_sent(&self) -> Vec<u64> {
        let mut ids: Vec<u64> =
            self.requests().iter().filter(|r| r.is_post()).map(|r| r.number("slice_id").unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// Runs `bigup-cli` with `args` against this server; `input` is its standard input.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(args);
        let mut child = started(|| command.spawn());
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A program that ends early leaves its input unread.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Run(output)
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with_input(args, b"")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bigup-cli"));
        command
            .args(args)
            .env("BIGUP_URL", &self.url)
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env_remove("http_proxy")
            .env_remove("BIGUP_LOG");
        command.env_remove("BIGUP_TOKEN");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// How a run of the program ended.
pub struct Run(pub Output);

impl Run {
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    pub fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// The JSON lines of the kind `event`.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        lines.into_iter().filter(|line| line["event"] == event).collect()
    }

    #[track_caller]
    pub fn ok(self) -> Run {
        assert_eq!(self.code(), 0, "stdout: {}\nstderr: {}", self.out(), self.err());
        self
    }

    #[track_caller]
    pub fn failed(self, says: &str) -> Run {
        self.failed_with(1, says)
    }

    /// The same with this exit code.
    pub fn failed_with(self, code: i32, says: &str) -> Run {
        assert_eq!(self.code(), code, "stdout: {}\nstderr: {}", self.out(), self.err());
        assert!(self.err().contains(says), "{says:?} is not in: {}", self.err());
        self
    }
}

/// A file of `bytes` in a folder that lives as long as the first of the two.
pub fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

/// Bytes that no two slices share.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

pub fn refusal(status: u16, code: &str, message: &str) -> Reply {
    Reply::Json(status, json!({"status": status, "error": code, "message": message}))
}

pub fn refusal_later(status: u16, code: &str, message: &str, seconds: u64) -> Reply {
    Reply::Later(status, json!({"status": status, "error": code, "message": message}), seconds)
}

pub fn write_file(path: &str, bytes: &[u8]) {
    std::fs::write(Path::new(path), bytes).unwrap();
}

fn serve(stream: TcpStream, state: &Mutex<State>, hook: &Hook) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        let reply = {
            let mut state = state.lock().unwrap();
            state.requests.push(request.clone());
            hook(&request, &mut state).unwrap_or_else(|| state.answer(&request))
        };
        if !write_reply(&stream, reply) {
            // The other end must not see a reset instead: it may still be sending.
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.trim().to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?')?;
    assert_eq!(path, "/big_file_upload");
    Some(Request { method, query: query.split('&').map(pair).collect(), authorization, body })
}

fn pair(text: &str) -> (String, String) {
    let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    text.split_once('=').map(|(name, value)| (decode(name), decode(value))).unwrap()
}

/// Whether the connection may stay.
fn write_reply(mut stream: &TcpStream, reply: Reply) -> bool {
    let (status, headers, body) = match reply {
        Reply::Json(status, value) => (status, String::new(), value.to_string()),
        Reply::Later(status, value, seconds) => (status, format!("retry-after: {seconds}\r\n"), value.to_string()),
        Reply::Raw(status, text) => (status, String::new(), text.to_owned()),
        Reply::Redirect(to) => (307, format!("location: {to}\r\n"), String::new()),
        Reply::Drop => return false,
    };
    let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).is_ok()
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        let name = request.get("file_name").unwrap_or_default().to_owned();
        match (request.method.as_str(), request.get("peek").is_some()) {
            ("POST", _) => self.post(&name, request),
            (_, true) if name.is_empty() => self.list(),
            (_, true) => self.look(&name, request).unwrap_or_else(|| refusal(404, "no_upload", "no such upload")),
            _ => self.begin(&name, request),
        }
    }

    fn list(&self) -> Reply {
        let uploads = self.uploads.iter().map(|(name, upload)| UploadStatus {
            file_name: name.clone(),
            slice_num: upload.plan.slice_num,
            slices_held: upload.slices.len() as u64,
            ..UploadStatus::default()
        });
        reply(&ListResponse { status: 200, uploads: uploads.collect() })
    }

    fn look(&self, name: &str, request: &Request) -> Option<Reply> {
        if let Some(finished) = self.finished.get(name) {
            return Some(reply(&finished.answer(name, request)));
        }
        let upload = self.uploads.get(name)?;
        let digest = |id: u64| Some(of_slice(&upload.plan, id, upload.slices.get(&id)?).to_string());
        let digests = request.get("digests").map(|range| {
            let (first, last) = range.split_once('-').unwrap();
            (first.parse().unwrap()..=last.parse::<u64>().unwrap()).map(digest).collect()
        });
        Some(reply(&UploadResponse { digests, ..upload.answer(name) }))
    }

    fn begin(&mut self, name: &str, request: &Request) -> Reply {
        let source = request.get("source").unwrap().to_owned();
        let plan = Plan::new(request.number("slice_num"), request.number("slice_size"), request.number("file_size"));
        let plan = plan.unwrap();
        if let Some(finished) = self.finished.get(name) {
            let own = of_bytes(&finished.bytes);
            let says = request.get("file_digest").and_then(|digest| digest.parse::<Digest>().ok());
            let differs = says.is_some_and(|says| says != own)
                || plan.file_size.is_some_and(|size| size != finished.bytes.len() as u64);
            let replace = request.get("replace") == Some("1") && source != finished.source && says != Some(own);
            match (differs, replace) {
                (_, true) => drop(self.finished.remove(name)),
                (true, false) => return refusal(409, "exists", "a finished file of other content exists"),
                (false, false) => return reply(&finished.answer(name, request)),
            }
        }
        if plan.file_size == Some(0) {
            return self.publish(name, source, Vec::new(), request);
        }
        let upload = self.uploads.entry(name.to_owned()).or_insert_with(|| Upload {
            source: source.clone(),
            plan: plan.clone(),
            ..Upload::default()
        });
        upload.mixed |= upload.source != source;
        match Plan::new(None, upload.plan.slice_size, plan.file_size).and_then(|told| upload.plan.bind(&told)) {
            Ok(plan) => upload.plan = plan,
            Err(error) => return refusal(409, "conflict", &error.to_string()),
        }
        let whole = upload.plan.slice_num.is_some_and(|num| num == upload.slices.len() as u64);
        let bytes: Vec<u8> = upload.slices.values().flatten().copied().collect();
        let says = request.get("file_digest").and_then(|digest| digest.parse::<Digest>().ok());
        if whole && (!upload.mixed || says == Some(of_bytes(&bytes))) {
            self.uploads.remove(name);
            return self.publish(name, source, bytes, request);
        }
        reply(&UploadResponse { compare: upload.mixed, ..upload.answer(name) })
    }

    fn publish(&mut self, name: &str, source: String, bytes: Vec<u8>, request: &Request) -> Reply {
        let finished = Finished { source, bytes };
        let answer = reply(&finished.answer(name, request));
        self.finished.insert(name.to_owned(), finished);
        answer
    }

    fn post(&mut self, name: &str, request: &Request) -> Reply {
        let id = request.number("slice_id").unwrap();
        let source = request.get("source").unwrap().to_owned();
        assert_eq!(request.number("slice_size"), Some(request.body.len() as u64));
        let digest: SliceDigest = request.get("slice_digest").unwrap().parse().unwrap();
        let answer =
            SliceResponse { file_name: name.to_owned(), slice_id: id, status: 200, ..SliceResponse::default() };
        if request.number("slice_num") == Some(1) {
            let equal = self.finished.get(name).map(|finished| finished.bytes == request.body);
            if equal == Some(false) && request.get("replace").is_none() {
                return refusal(409, "exists", "a finished file of other content exists");
            }
            assert_eq!(digest.digest, of_bytes(&request.body));
            let file_digest = Some(of_bytes(&request.body).to_string());
            self.finished.insert(name.to_owned(), Finished { source, bytes: request.body.clone() });
            return reply(&SliceResponse { is_uploaded: 1, file_digest, held: equal == Some(true), ..answer });
        }
        let Some(upload) = self.uploads.get_mut(name) else { return refusal(404, "no_upload", "no such upload") };
        match upload.plan.learn(id, request.body.len() as u64) {
            Ok(plan) => upload.plan = plan,
            Err(error) => return refusal(409, "conflict", &error.to_string()),
        }
        if of_slice(&upload.plan, id, &request.body) != digest {
            return refusal(400, "damaged", "the slice arrived damaged");
        }
        upload.slices.insert(id, request.body.clone());
        reply(&answer)
    }
}

impl Upload {
    fn answer(&self, name: &str) -> UploadResponse {
        UploadResponse {
            file_name: name.to_owned(),
            status: 200,
            slice_ranges_uploaded: Some(SliceRanges::with_frontier(0, self.slices.keys().copied().collect())),
            slice_num: self.plan.slice_num,
            slice_size: self.plan.slice_size,
            file_size: self.plan.file_size,
            curr_merge_slice_id: Some(0),
            ..UploadResponse::default()
        }
    }
}

impl Finished {
    fn answer(&self, name: &str, request: &Request) -> UploadResponse {
        UploadResponse {
            file_name: name.to_owned(),
            status: 200,
            is_uploaded: 1,
            same_source: request.get("source") == Some(&self.source),
            file_size: Some(self.bytes.len() as u64),
            file_digest: Some(of_bytes(&self.bytes).to_string()),
            ..UploadResponse::default()
        }
    }
}

fn reply(answer: &impl serde::Serialize) -> Reply {
    Reply::Json(200, serde_json::to_value(answer).unwrap())
}
