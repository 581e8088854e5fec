//! A client of tus 1.0.0 that sends whatever it is told, also requests that no client should send.

use crate::http::connect;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The type of bodies that are appended.
pub const OFFSET_STREAM: (&str, &str) = ("Content-Type", "application/offset+octet-stream");

/// The version, which every request but OPTIONS carries.
pub const RESUMABLE: (&str, &str) = ("Tus-Resumable", "1.0.0");

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status; 0 if the connection ended without a response.
    pub status: u16,
    head: String,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The number under `Upload-Offset`.
    pub fn offset(&self) -> Option<u64> {
        self.header("Upload-Offset")?.parse().ok()
    }

    /// This response, if it has the status.
    ///
    /// # Panics
    /// It has not.
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Reads a response to a request of `method`. Its connection may stay open. Status 0: it ended without one.
    pub fn read(stream: &mut TcpStream, method: &str) -> Reply {
        Reply::try_read(stream, method).unwrap_or_default()
    }

    /// The same.
    ///
    /// # Errors
    /// The connection ended.
    pub fn try_read(stream: &mut TcpStream, method: &str) -> std::io::Result<Reply> {
        let (mut head, mut byte) = (vec![], [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let mut reply = Reply::of(&String::from_utf8_lossy(&head), "");
        let len = reply.header("Content-Length").and_then(|len| len.parse().ok()).unwrap_or(0);
        let mut body = vec![0; if method == "HEAD" { 0 } else { len }];
        stream.read_exact(&mut body)?;
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    fn of(head: &str, body: &str) -> Reply {
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Tus {
    url: String,
    /// Header lines of every request.
    lines: String,
}

impl Tus {
    /// A client of the daemon at `url`.
    pub fn new(url: &str) -> Tus {
        Tus { url: url.to_owned(), lines: String::new() }
    }

    /// The same, with a token that goes with every request.
    pub fn with_token(&self, token: &str) -> Tus {
        Tus { lines: format!("{}Authorization: Bearer {token}\r\n", self.lines), ..self.clone() }
    }

    /// The head of a request, which has no version but what `headers` say.
    pub fn head_of(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let has_host = headers.iter().any(|(name, _)| *name == "Host");
        let host = if has_host { "" } else { "Host: localhost\r\n" };
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\n{host}{}{lines}", self.lines)
    }

    /// Sends a request, which has no version but what `headers` say, and reads the response.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_send(method, path, headers, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// The same while the daemon may be away, or end.
    ///
    /// # Errors
    /// There is no daemon, or no response.
    pub fn try_send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(crate::http::address(&self.url))?;
        stream.set_read_timeout(Some(Duration::from_secs(90)))?;
        let head = self.head_of(method, path, headers);
        let length = if body.is_empty() && method != "POST" && method != "PATCH" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!("{head}{length}Connection: close\r\n\r\n");
        // The response may be there before the body is.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        read_reply(&mut stream, method)
    }

    /// The head of a PATCH of `len` bytes, sent; its body is the caller's to send.
    pub fn begin_patch(&self, at: &str, offset: u64, len: u64) -> TcpStream {
        self.begin_patch_with(at, offset, &[("Content-Length", &len.to_string())])
    }

    /// The same with these headers in place of a length.
    pub fn begin_patch_with(&self, at: &str, offset: u64, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = connect(&self.url);
        let offset = offset.to_string();
        let headers = [&[RESUMABLE, OFFSET_STREAM, ("Upload-Offset", &offset)], headers].concat();
        let head = format!("{}\r\n", self.head_of("PATCH", at, &headers));
        stream.write_all(head.as_bytes()).expect("the daemon takes a head");
        stream
    }

    /// Creates an upload of `len` bytes under `name`, and returns its path.
    pub fn create(&self, name: &str, len: u64) -> String {
        let (len, metadata) = (len.to_string(), file_name(name));
        self.post(&[("Upload-Length", &len), ("Upload-Metadata", &metadata)]).location()
    }

    /// Creates an upload whose length comes later, and returns its path.
    pub fn create_deferred(&self, name: &str) -> String {
        self.post(&[("Upload-Defer-Length", "1"), ("Upload-Metadata", &file_name(name))]).location()
    }

    /// Creates a partial upload of `len` bytes, and returns its path.
    pub fn create_partial(&self, len: u64) -> String {
        self.post(&[("Upload-Concat", "partial"), ("Upload-Length", &len.to_string())]).location()
    }

    /// Creates the final upload of the partial ones at these paths, under `name`.
    pub fn join(&self, name: &str, paths: &[String]) -> Reply {
        let list = format!("final;{}", paths.join(" "));
        self.post(&[("Upload-Concat", &list), ("Upload-Metadata", &file_name(name))])
    }

    /// A creation without a body.
    pub fn post(&self, headers: &[(&str, &str)]) -> Reply {
        self.send("POST", "/files/", &[&[RESUMABLE], headers].concat(), b"")
    }

    /// A PATCH.
    pub fn patch(&self, at: &str, offset: u64, body: &[u8]) -> Reply {
        self.patch_with(at, offset, &[], body)
    }

    /// A PATCH with further headers.
    pub fn patch_with(&self, at: &str, offset: u64, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let offset = offset.to_string();
        let headers = [&[RESUMABLE, OFFSET_STREAM, ("Upload-Offset", &offset)], headers].concat();
        self.send("PATCH", at, &headers, body)
    }

    /// A HEAD.
    pub fn head(&self, at: &str) -> Reply {
        self.send("HEAD", at, &[RESUMABLE], b"")
    }

    /// The offset that HEAD tells.
    ///
    /// # Panics
    /// It tells none.
    pub fn offset(&self, at: &str) -> u64 {
        self.head(at).expect(200).offset().expect("HEAD tells the offset")
    }

    /// A DELETE.
    pub fn delete(&self, at: &str) -> Reply {
        self.send("DELETE", at, &[RESUMABLE], b"")
    }
}

impl Reply {
    /// The path under `Location` of an upload that was created.
    ///
    /// # Panics
    /// It was not.
    pub fn location(self) -> String {
        let reply = self.expect(201);
        reply.header("Location").expect("a creation tells where").to_owned()
    }
}

fn read_reply(stream: &mut TcpStream, method: &str) -> std::io::Result<Reply> {
    let mut text = vec![];
    let read = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(read.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into()));
    };
    assert!(method != "HEAD" || body.is_empty(), "the response to HEAD has a body: {text}");
    Ok(Reply::of(head, body))
}

/// Metadata with a file's name.
pub fn file_name(name: &str) -> String {
    format!("filename {}", base64(name.as_bytes()))
}

/// Closes a connection as a process that dies does: bytes that were sent arrive.
pub fn close(stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Closes a connection as a network does that breaks: by a reset.
pub fn reset(stream: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).expect("it can be set");
}

/// Base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
