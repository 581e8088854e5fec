//! Hooks of a test's own: scripts, and a server that answers POSTs.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// Writes a script for sh, in which `DIR` stands for `folder`; its path.
pub fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    // By another process: what a test starts meanwhile in other threads would hold the file open for writing for a moment,
    // and then it cannot be executed.
    let mut writer = Command::new("sh");
    writer.args(["-c", "cat > \"$0.new\" && chmod 755 \"$0.new\" && mv \"$0.new\" \"$0\""]).arg(&path);
    let mut writer = writer.stdin(Stdio::piped()).spawn().expect("sh can be started");
    let text = format!("#!/bin/sh\n{}\n", text.replace("DIR", &folder.display().to_string()));
    writer.stdin.take().expect("it was asked for").write_all(text.as_bytes()).expect("it is read");
    assert!(writer.wait().expect("it was started").success());
    path.display().to_string()
}

/// The lines of a file; none if it is not there.
pub fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A server of hooks. It ends with the test.
pub struct WebHook {
    /// Where it is.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its head's lines, names in small letters.
    pub head: Vec<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn header(&self, name: &str) -> &str {
        let found = self.head.iter().find_map(|line| line.strip_prefix(&format!("{name}:")));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.head)).trim()
    }
}

impl WebHook {
    /// Answers each request, by its number from 0, with what `answer` gives: the head's lines after `HTTP/1.1 `, and a body.
    pub fn start(answer: impl Fn(usize) -> (&'static str, String) + Send + 'static) -> WebHook {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}/hook", listener.local_addr().expect("it listens"));
        let asked = Arc::new(Mutex::new(vec![]));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("it can be accepted");
                // A client that gave up is none of a test's business.
                let Some(request) = read_request(&stream) else { continue };
                let number = {
                    let mut heard = heard.lock().expect("nobody panics with it");
                    heard.push(request);
                    heard.len() - 1
                };
                let (head, body) = answer(number);
                let length = body.len();
                let _ =
                    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            }
        });
        WebHook { url, asked }
    }

    /// The bodies of all requests so far.
    pub fn asked(&self) -> Vec<Value> {
        self.requests().iter().map(|request| serde_json::from_slice(&request.body).expect("it is JSON")).collect()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics with it").clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let (mut len, mut head) = (0, vec![]);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        let line = match line.trim().split_once(':') {
            Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
            None => line.trim().to_owned(),
        };
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().ok()?;
        }
        head.push(line);
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { head, body })
}
