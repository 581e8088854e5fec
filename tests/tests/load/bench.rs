//! The benchmark on the smallest of inputs, with no peer that would have to be installed: that it runs, not what it finds.

use bigup_tests::turns::turn;
use std::path::Path;
use std::process::Command;

fn bench(arguments: &[&str]) -> Command {
    // It finds the other programs where it lies itself.
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str], docs: &Path) -> String {
    let output =
        bench(arguments).args(["--peers", "cp,bigup-http", "--docs"]).arg(docs).output().expect("it can be started");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {printed}{errors}");
    printed.into_owned()
}

#[test]
fn modes_yield_tables_and_sections_of_the_document() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let docs = folder.path().join("results.md");
    let modes: [(&[&str], &str); 12] = [
        (&["small", "20", "1"], "small"),
        (&["small", "20", "1", "--busy"], "small busy"),
        (&["tls", "1M", "1"], "tls"),
        (&["file", "1M", "2"], "file 1 MiB"),
        (&["sync", "20", "1"], "sync"),
        (&["watch", "5", "1M", "1"], "watch"),
        (&["get", "16M", "1"], "get"),
        (&["clients", "64K", "1"], "clients"),
        (&["resume", "256M", "1"], "resume"),
        (&["finish", "1", "1M"], "finish"),
        (&["floor", "16M", "1"], "floor"),
        (&["s3", "20M", "64K", "1"], "s3"),
    ];
    for (arguments, key) in modes {
        let printed = run(arguments, &docs);
        assert!(printed.contains("bigup"), "{printed}");
        let text = std::fs::read_to_string(&docs).unwrap();
        let section =
            text.split(&format!("<!-- mode: {key} -->")).nth(1).unwrap_or_else(|| panic!("no {key} in {text}"));
        let section = section.split("<!-- end -->").next().unwrap();
        assert!(section.contains("| bigup"), "{section}");
        assert!(!section.contains("Absent"), "{section}");
    }
    let text = std::fs::read_to_string(&docs).unwrap();
    assert!(text.contains("\n| cp | "), "{text}");
    assert_eq!(text.matches("<!-- mode: ").count(), modes.len(), "each mode has one section");
    let chart = std::fs::read_to_string(folder.path().join("results.svg")).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("One file of 1 MiB"), "{chart}");
}

#[test]
fn an_unknown_peer_or_mode_is_refused_with_those_that_there_are() {
    let output = bench(&["file", "1M", "1", "--peers", "ftp"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("ftp") && errors.contains("nginx"), "{errors}");
    let output = bench(&["fast"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
