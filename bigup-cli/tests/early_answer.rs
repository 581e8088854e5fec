//! A server that answers before it has read a slice, and closes: the client, which still sends, meets a reset (on
//! Windows errors 10053 and 10054).

mod common;

use common::{Mock, Run, bytes, file};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Bytes of a slice: more than a connection holds that nobody reads from.
const SLICE: usize = 8 << 20;

/// Slices of the file.
const SLICES: usize = 3;

const FORBIDDEN: &str = r#"{"status": 403, "error": "forbidden", "message": "this name is not yours"}"#;
const STOPPING: &str = r#"{"status": 503, "error": "stopping", "message": "the server is stopping"}"#;

/// What the gate says to a slice. `None`: it closes without a word.
type Answer = Option<(u16, &'static str)>;

/// Passes requests on to a server, but answers the first slices itself, at the first of their bytes.
struct Gate {
    url: String,
    mock: Mock,
    /// Number of slices that it answered.
    answered: Arc<AtomicU32>,
}

impl Gate {
    /// Answers so many slices.
    fn new(times: u32, answer: Answer) -> Gate {
        let mock = Mock::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (server, answered) = (mock.url.strip_prefix("http://").unwrap().to_owned(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&answered);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, counted) = (server.clone(), Arc::clone(&counted));
                thread::spawn(move || {
                    serve(stream, &server, &|| {
                        let more = |count: u32| (count < times).then_some(count + 1);
                        counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok().then_some(answer)
                    })
                });
            }
        });
        Gate { url, mock, answered }
    }

    fn push(&self, path: &str, more: &[&str]) -> Run {
        self.mock.run(&[&["push", "--url", &self.url, "--slice-size", "8M", "--json", path], more].concat())
    }
}

/// One request; then the connection ends, and what was not read of it is lost to the other end with a reset.
fn serve(stream: TcpStream, server: &str, own_answer: &dyn Fn() -> Option<Answer>) {
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let value = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let len: u64 = value("content-length").map_or(0, |len| len.parse().unwrap());
    if head.starts_with("POST")
        && let Some(answer) = own_answer()
    {
        if let Some((status, text)) = answer {
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            let _ = (&stream).write_all(answer.as_bytes());
        }
        return;
    }
    if value("expect").is_some() {
        (&stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    }
    let mut body = vec![];
    reader.take(len).read_to_end(&mut body).unwrap();
    let mut onward = TcpStream::connect(server).unwrap();
    onward.write_all(head.as_bytes()).unwrap();
    onward.write_all(&body).unwrap();
    onward.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = vec![];
    onward.read_to_end(&mut answer).unwrap();
    let _ = (&stream).write_all(&answer);
}

fn data() -> Vec<u8> {
    bytes(SLICE * SLICES)
}

#[test]
fn a_refusal_before_the_end_of_the_slice_is_read() {
    let (_dir, path) = file("a", &data());
    let gate = Gate::new(u32::MAX, Some((403, FORBIDDEN)));
    let run = gate.push(&path, &[]);
    assert_eq!(run.code(), 1, "{}", run.out());
    let said = run.events("error").pop().unwrap();
    assert!(said["message"].as_str().unwrap().contains("this name is not yours"), "{said}");
    assert_eq!(gate.mock.slices_sent(), [] as [u64; 0]);
    // Once more at most for each that was at work, which asks before it sends: the first answer may be lost.
    assert!(gate.answered.load(Ordering::SeqCst) <= 2 * SLICES as u32);
}

#[test]
fn what_was_cut_off_or_put_off_is_sent_again_and_the_push_ends_well() {
    let data = data();
    let (_dir, path) = file("a", &data);
    for answer in [None, Some((503, STOPPING)), Some((502, "<html>")), Some((408, ""))] {
        let gate = Gate::new(4, answer);
        gate.push(&path, &[]).ok();
        assert_eq!(gate.mock.finished("a"), Some(data.clone()), "{answer:?}");
        assert_eq!(gate.answered.load(Ordering::SeqCst), 4, "{answer:?}");
    }
}

#[test]
fn a_slice_that_nobody_read_is_never_taken_for_stored() {
    let data = data();
    let (_dir, path) = file("a", &data);
    // Others than bigup say such things too; the last one is what bigup says of a slice that it has.
    for answer in ["{}", r#"{"status": 200}"#, r#"{"status": 200, "slice_id": 0, "held": true, "is_uploaded": 0}"#] {
        let gate = Gate::new(2, Some((200, answer)));
        let run = gate.push(&path, &["--retries", "3"]);
        let finished = gate.mock.finished("a");
        // The end tells: an answer that bigup would not give is an error, and none leads to another file.
        assert!(finished == Some(data.clone()) || run.code() != 0 && finished.is_none(), "{answer}: {}", run.out());
        assert_eq!(run.code() == 0, finished.is_some(), "{answer}: {}", run.out());
    }
}
