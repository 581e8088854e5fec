//! What idle connections cost: memory of a daemon that holds many of them, each of which made one request.

use crate::peers::bigupd;
use crate::table::Table;
use crate::{Bench, Report};
use bigup_core::protocol::units::show_size;
use bigup_tests::http::{connect, post_head, read_answer};
use bigup_tests::usage::{memory, peak_memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// Connections that make their request at the same time.
const AT_ONCE: usize = 64;

/// Bytes of a body. Slices of this size have plain digests.
const BODY: usize = 1_000_000;

/// Holds `count` connections, or as many as descriptors suffice for, after a small question, and as many after a body.
pub fn run(bench: &Bench<'_>, count: usize) -> anyhow::Result<Report> {
    let count = count.min(fitting()?);
    let ask = b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let body = vec![7; BODY];
    // Held after the first time, and then compared by its digest alone: nothing of it is kept.
    let digest = blake3::hash(&body);
    let query = format!("file_name=f&slice_id=1&slice_num=3&slice_size={BODY}&slice_digest=hash:{digest}");
    let send = [post_head(&query, &[&format!("Content-Length: {BODY}")]), body].concat();
    let header = ["each asked", "before", "now", "a connection", "at most"];
    let mut table = Table::new(format!("Memory of bigupd with {count} idle connections"), "", &header);
    for (what, request) in [("a small question", &ask), ("to store 1 MB", &send)] {
        let data = bench.folder.join(what.replace(' ', "-"));
        std::fs::create_dir_all(&data)?;
        let most = (count + AT_ONCE).to_string();
        let limits = ["--max-connections", &most, "--max-connections-per-address", "0", "--idle-timeout", "1h"];
        let daemon = bigupd(&data, &limits)?;
        let before = memory(daemon.pid()).unwrap_or(0);
        let connections = open(&daemon.url(), count, request);
        std::thread::sleep(Duration::from_secs(5));
        let after = memory(daemon.pid()).unwrap_or(0);
        let each = after.saturating_sub(before) / connections.len() as u64;
        let sizes = [before, after, each, peak_memory(daemon.pid()).unwrap_or(0)].map(show_size);
        table.row([what.to_owned()].into_iter().chain(sizes));
    }
    Ok(Report {
        title: "Idle connections".to_owned(),
        text: "What a daemon holds for connections that made one request each and stay open.".to_owned(),
        versions: vec![],
        tables: vec![table],
    })
}

/// How many connections the descriptors suffice for that the system allows this program and, by it, the daemon: three for
/// each, beside some that are for other things (docs/operations.md).
fn fitting() -> anyhow::Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    anyhow::ensure!(
        most >= 2000,
        "{most} descriptors are allowed, at least 2000 are needed: raise that by `ulimit -Hn`"
    );
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(usize::try_from((most - 700) / 3)?.saturating_sub(AT_ONCE))
}

/// Opens connections that make one request each.
fn open(url: &str, count: usize, request: &[u8]) -> Vec<TcpStream> {
    let one = || {
        let mut stream = connect(url);
        stream.write_all(request).expect("the daemon takes all that is sent");
        assert!(read_answer(&mut stream).starts_with("HTTP/1.1 200"), "the request is right");
        stream
    };
    let mut connections = vec![one()];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=AT_ONCE)
            .map(|first| scope.spawn(move || (first..count).step_by(AT_ONCE).map(|_| one()).collect::<Vec<_>>()))
            .collect();
        connections.extend(threads.into_iter().flat_map(|thread| thread.join().expect("all requests went well")));
    });
    connections
}
