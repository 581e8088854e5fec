//! What lies between the client and the server: names, ports, proxies.

mod common;

use common::{Mock, bytes, file, started};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A server that only a proxy finds (RFC 6761, section 6.4).
const FAR: &str = "http://server.invalid:8888";

fn cli(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigup-cli"));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "BIGUP_TOKEN", "BIGUP_URL"] {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.args(args);
    command
}

/// What a command printed that must fail, soon enough to show that nothing was tried again for ten minutes.
fn failed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = started(|| command.output());
    let said = String::from_utf8([stderr, stdout].concat()).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("retrying"), "{said}");
    said
}

/// A proxy that does `each` with its connections. Its address, and how many there were.
fn proxy(each: impl Fn(TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (count, each) = (Arc::new(AtomicU32::new(0)), Arc::new(each));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let each = Arc::clone(&each);
            thread::spawn(move || each(stream));
        }
    });
    (address, count)
}

/// Reads the head of a request; its first line.
fn head(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    lines.for_each(drop);
    first
}

/// Passes on whatever comes, both ways, until either ends.
fn pass(client: TcpStream, server: &str) {
    let server = TcpStream::connect(server.trim_start_matches("http://")).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut &server, &mut &client);
}

#[test]
fn a_port_out_of_range_ends_at_once_and_is_not_taken_for_another() {
    let (_dir, path) = file("a", b"x");
    for url in ["http://127.0.0.1:99999", "https://127.0.0.1:0"] {
        let said = failed(&mut cli(&["push", "--url", url, &path]));
        assert!(said.contains("1 to 65535"), "{said}");
    }
}

#[test]
fn a_name_that_cannot_be_resolved_ends_at_once() {
    let (_dir, path) = file("a", b"x");
    let said = failed(&mut cli(&["push", "--url", FAR, &path]));
    assert!(said.contains("the name server.invalid cannot be resolved"), "{said}");
    let said = failed(cli(&["push", "--url", FAR, &path]).env("http_proxy", "http://proxy.invalid:3128"));
    assert!(said.contains("the name proxy.invalid cannot be resolved"), "{said}");
}

#[test]
fn a_server_that_does_not_answer_at_first_is_told_with_how_long_it_is_tried() {
    let (_dir, path) = file("a", b"x");
    let mut command = cli(&["push", "--url", "http://127.0.0.1:1", "--retry-for", "1s", &path]);
    let output = started(|| command.output());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("retrying for 1s: no answer from http://127.0.0.1:1/"), "{said}");
}

#[test]
fn a_password_in_the_url_is_refused_and_shown_nowhere() {
    let (_dir, path) = file("a", b"x");
    let url = "http://user:s3cr3t@127.0.0.1:1";
    let path = path.as_str();
    for args in [&["push", "--json", path][..], &["status"], &["verify", path], &["push", "--help"]] {
        let output = started(|| cli(args).env("BIGUP_URL", url).env("BIGUP_LOG", "trace").output());
        let said = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
        assert!(!said.contains("s3cr3t"), "{args:?}: {said}");
        assert!(args.contains(&"--help") || said.contains("--token-file"), "{args:?}: {said}");
    }
}

#[test]
fn a_dead_proxy_is_named_without_its_password() {
    let said = failed(cli(&["status", "--url", FAR]).env("http_proxy", "http://user:s3cr3t@127.0.0.1:1"));
    assert!(said.contains("by way of the proxy http://***@127.0.0.1:1: ") && !said.contains("s3cr3t"), "{said}");
}

#[test]
fn a_proxy_that_cannot_be_one_is_refused() {
    for (proxy, part) in [("ftp://127.0.0.1:1", "ftp"), ("http://127.0.0.1:70000", "65535")] {
        let said = failed(cli(&["status", "--url", FAR]).env("HTTP_PROXY", proxy));
        // Windows does not tell small letters from capitals there.
        let variable = if cfg!(windows) { "http_proxy=" } else { "HTTP_PROXY=" };
        assert!(said.contains(variable) && said.contains(part), "{said}");
    }
}

#[test]
fn a_proxy_that_wants_a_password_ends_the_push_with_what_to_do() {
    let (address, count) = proxy(|mut stream| {
        head(&stream);
        let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    });
    let (_dir, path) = file("a", b"x");
    let said = failed(cli(&["push", "--url", FAR, &path]).env("http_proxy", format!("http://{address}")));
    assert!(said.contains("407") && said.contains("USER:PASSWORD@HOST:PORT") && said.contains(&address), "{said}");
    assert_eq!(count.load(Ordering::SeqCst), 1, "it was tried again");
}

#[test]
fn a_push_goes_by_way_of_proxies_of_all_kinds() {
    let mock = Mock::new();
    let server = mock.url.clone();
    let (http, https_count) = proxy(move |mut stream| {
        assert!(head(&stream).starts_with("CONNECT server.invalid:8888 "));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        pass(stream, &server);
    });
    let server = mock.url.clone();
    // RFC 1928: one method, no password; connect to a name; done.
    let (socks, socks_count) = proxy(move |mut stream| {
        stream.read_exact(&mut [0; 3]).unwrap();
        stream.write_all(&[5, 0]).unwrap();
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request[..4], [5, 1, 0, 3]);
        stream.read_exact(&mut vec![0; usize::from(request[4]) + 2]).unwrap();
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        pass(stream, &server);
    });
    let data = bytes(3000);
    let (_dir, path) = file("a", &data);
    for (variable, proxy, name) in
        [("http_proxy", format!("http://{http}"), "by-http"), ("all_proxy", format!("socks5h://{socks}"), "by-socks")]
    {
        let args = ["push", "--url", FAR, "--name", name, "--slice-size", "1K", &path];
        let output = started(|| cli(&args).env(variable, &proxy).output());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mock.finished(name), Some(data.clone()), "{name}");
    }
    assert!(https_count.load(Ordering::SeqCst) > 0 && socks_count.load(Ordering::SeqCst) > 0);
}
