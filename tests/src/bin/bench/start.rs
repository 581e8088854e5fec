//! The time that programs take to start: until they have ended, and until the first byte of a push is on the wire.

use crate::table::{Table, spread};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::MIB;
use bigup_tests::programs;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs it: so many starts of each program, in turn.
pub fn run(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Report> {
    let programs: [(&str, PathBuf); 3] = [
        ("bigup-cli", programs::path("bigup-cli")),
        ("curl", PathBuf::from("curl")),
        ("rsync", PathBuf::from("rsync")),
    ];
    let file = bench.source("started", 64 * MIB);
    let (mut ends, mut firsts) = (vec![vec![]; programs.len()], vec![vec![]; 2]);
    for _ in 0..rounds {
        for ((_, program), ends) in programs.iter().zip(&mut ends) {
            let began = Instant::now();
            let output = Command::new(program).arg("--version").output().with_context(|| format!("{program:?}"))?;
            ends.push(began.elapsed().as_secs_f64());
            ensure!(output.status.success(), "{output:?}");
        }
        firsts[0].push(first_byte(|url| {
            let mut push = programs::cli();
            push.arg("push").arg(&file).args(["--quiet", "--url", url]);
            push
        })?);
        firsts[1].push(first_byte(|url| {
            let mut put = Command::new("curl");
            put.args(["-sS", "-o", "/dev/null", "-T"]).arg(&file).arg(format!("{url}/file"));
            put
        })?);
    }
    let mut table = Table::new(
        "From the start of a program",
        "",
        &["program", "--version, to its end", "first byte of 64 MiB sent"],
    );
    for (place, ((name, _), ends)) in programs.iter().zip(&ends).enumerate() {
        let first = firsts.get(place).map_or("–".to_owned(), |firsts| spread(firsts));
        table.row([(*name).to_owned(), spread(ends), first]);
    }
    Ok(Report {
        title: "Start".to_owned(),
        text: format!("{rounds} starts of each program, in turn. The server is a listener that answers nothing."),
        versions: vec![],
        tables: vec![table],
    })
}

/// The time until a client that is given a URL of this machine sends its first byte there.
fn first_byte(client: impl FnOnce(&str) -> Command) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut command = client(&format!("http://{}", listener.local_addr()?));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn()?;
    let (mut stream, _) = listener.accept()?;
    stream.read_exact(&mut [0])?;
    let first = began.elapsed().as_secs_f64();
    child.kill()?;
    child.wait()?;
    Ok(first)
}
