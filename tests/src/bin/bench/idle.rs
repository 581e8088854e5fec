//! What idle connections cost: memory of a daemon that holds many of them, each of which made one request.

use crate::Bigupd;
use bigup_core::units::show_size;
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

/// Runs the benchmark: `[N]`.
pub fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let count: usize = arguments.next().unwrap_or_else(|| "10000".to_owned()).parse()?;
    allow_descriptors(count as u64 * 4 / 3 + 2200)?;
    let ask = b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec();
    let body = vec![7; BODY];
    // Held after the first time, and then compared by its digest alone: nothing of it is kept.
    let digest = blake3::hash(&body);
    let query = format!("file_name=f&slice_id=1&slice_num=3&slice_size={BODY}&slice_digest=hash:{digest}");
    let send = [post_head(&query, &[&format!("Content-Length: {BODY}")]), body].concat();
    for (what, request) in [("a small question", &ask), ("a body of 1 MB", &send)] {
        let folder = tempfile::tempdir()?;
        let most = (count + AT_ONCE).to_string();
        let limits = ["--max-connections", &most, "--max-connections-per-address", "0", "--idle-timeout", "1h"];
        let daemon = Bigupd::start(&folder.path().join("data"), &limits)?;
        let before = memory(daemon.pid()).unwrap_or(0);
        let connections = open(&daemon.url, count, request);
        std::thread::sleep(Duration::from_secs(5));
        let after = memory(daemon.pid()).unwrap_or(0);
        println!(
            "{count} idle connections after {what}: {} before, {} now, {} each, {} at most",
            show_size(before),
            show_size(after),
            show_size(after.saturating_sub(before) / connections.len() as u64),
            show_size(peak_memory(daemon.pid()).unwrap_or(0))
        );
        drop(connections);
        daemon.end()?;
    }
    Ok(())
}

/// Sees to it that this program, and with it the daemon, which inherits it, may have so many descriptors.
fn allow_descriptors(needed: u64) -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    anyhow::ensure!(needed <= most, "{needed} descriptors are needed and {most} allowed: raise that by `ulimit -Hn`");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
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
