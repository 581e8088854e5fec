//! TLS, with the real programs and certificates made by the test: pushes are exact, whoever is not trusted is told so at
//! once, certificates change while the daemon runs, and mistakes in files are told before anything is bound.

use bigup_tests::certificates::{Authority, Certificate};
use bigup_tests::daemon::Daemon;
use bigup_tests::http::{self, Server};
use bigup_tests::process::{eventually, kill_9, signal};
use bigup_tests::usage::descriptors;
use bigup_tests::{data, docs, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Names of this machine that tests connect to.
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// How long the client may go on with what passes: long enough for many attempts, where there should be one.
const RETRY_FOR: &str = "5s";

/// A folder with an authority, a certificate of it, and a daemon with that.
struct Setting {
    folder: tempfile::TempDir,
    authority: Authority,
    certificate: Certificate,
    daemon: Daemon,
}

fn setting(arguments: &[&str]) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let certificate = authority.issue("server", &HOSTS);
    let daemon = Daemon::with(&[&certificate.arguments()[..], arguments].concat());
    Setting { folder, authority, certificate, daemon }
}

impl Setting {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The client's command, trusting the authorities in the file `ca`.
    fn cli(&self, command: &str, ca: &Path) -> Command {
        let mut cli = cli(command, self.daemon.url());
        cli.arg("--ca-cert").arg(ca);
        cli
    }
}

/// The client's command, trusting the system's authorities, which are none.
fn cli(command: &str, url: &str) -> Command {
    let mut cli = programs::cli();
    cli.args([command, "--url", url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", "/nonexistent/authorities");
    cli.env_remove("all_proxy").env_remove("ALL_PROXY");
    cli
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program can be started")
}

/// Runs a command that must succeed; what it printed on standard output.
fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Runs a push that must fail at its first attempt; what it said.
fn refused(command: &mut Command) -> String {
    let output = run(command.args(["/etc/hostname", "--retry-for", RETRY_FOR]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("retrying"), "{said}");
    said
}

/// Asserts that `text` contains each of `parts`.
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn bigupd(arguments: &[&str]) -> Output {
    Command::new(programs::path("bigupd")).args(arguments).output().expect("bigupd can be started")
}

#[test]
fn a_file_of_many_slices_arrives_exact() {
    let setting = setting(&[]);
    let (daemon, ca) = (&setting.daemon, &setting.authority.file);
    assert!(daemon.url().starts_with("https://"), "{}", daemon.url());
    let file = data::file(setting.folder.path(), "f", 1, (20 << 20) + 1);
    let out = succeed(setting.cli("push", ca).arg(&file).args(["--slice-size", "1M"]));
    assert!(out.contains(&data::digest(&file)), "{out}");
    assert!(data::same(&file, &daemon.finished("f")));
    assert!(succeed(setting.cli("verify", ca).arg(&file)).contains("equal"));
    assert!(succeed(setting.cli("status", ca).arg("f")).contains("finished"));
    // The environment says the same, and the system's authorities count where nothing is said.
    succeed(cli("status", daemon.url()).env("BIGUP_CA_CERT", ca));
    succeed(cli("status", daemon.url()).env("SSL_CERT_FILE", ca));
    daemon.eventually_clean();
}

#[test]
fn a_server_that_is_not_trusted_is_refused_at_once() {
    let setting = setting(&[]);
    let stranger = Authority::new(setting.folder.path(), "stranger");
    assert_says(&refused(&mut setting.cli("push", &stranger.file)), &["no authority that we trust", "--ca-cert"]);
    // Nor is one that has the right name only.
    let double = tempfile::tempdir().unwrap();
    let double = Authority::new(double.path(), "authority");
    assert_says(&refused(&mut setting.cli("push", &double.file)), &["no authority that we trust"]);
    let said = refused(cli("push", setting.daemon.url()).env("SSL_CERT_FILE", &stranger.file));
    assert_says(&said, &["no authority that we trust"]);
    let said = refused(&mut cli("push", setting.daemon.url()));
    assert_says(&said, &["no certificate authorities", "ca-certificates", "--ca-cert"]);
    assert_eq!(setting.daemon.spools(), [""; 0]);
}

#[test]
fn a_certificate_of_another_name_or_another_time_is_refused_at_once() {
    let setting = setting(&[]);
    let other = setting.authority.issue("other", &["files.example"]);
    let daemon = Daemon::with(&other.arguments());
    let said = refused(cli("push", daemon.url()).arg("--ca-cert").arg(&setting.authority.file));
    assert_says(&said, &["not for 127.0.0.1", "files.example", "--url"]);
    let expired = setting.authority.issue_expired("expired", &HOSTS);
    let daemon = Daemon::with(&expired.arguments());
    assert_says(&daemon.log(), &["WARN", "expired-cert.pem", "expired at"]);
    let said = refused(cli("push", daemon.url()).arg("--ca-cert").arg(&setting.authority.file));
    assert_says(&said, &["expired at", "clock"]);
}

#[test]
fn a_connection_that_rested_goes_on() {
    let setting = setting(&[]);
    let server = setting.daemon.server_trusting(&setting.authority.file);
    let sockets = || -> Vec<String> {
        let open = descriptors(setting.daemon.pid()).unwrap();
        open.into_iter().filter(|what| what.starts_with("socket:")).collect()
    };
    server.get("peek=1").expect(200);
    let before = sockets();
    // Several times what it takes until it counts as resting.
    std::thread::sleep(Duration::from_millis(600));
    server.get("peek=1").expect(200);
    assert_eq!(sockets(), before, "it is another connection");
}

#[test]
fn who_speaks_something_else_at_a_port_is_told() {
    let setting = setting(&[]);
    let plain = setting.daemon.url().replace("https:", "http:");
    assert_says(&refused(&mut cli("push", &plain)), &["use https://"]);
    let answer =
        http::Answer::parse(&http::raw(&plain, b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(answer.expect(400).body["error"], "bad_request");
    // A body that was not read takes no answer with it.
    let body = vec![7; 8 << 20];
    let head = http::post_head("file_name=f&slice_id=0", &[&format!("Content-Length: {}", body.len())]);
    assert_eq!(http::Answer::parse(&http::raw(&plain, &[head, body].concat())).status, 400);
    setting.daemon.server_trusting(&setting.authority.file).get("peek=1").expect(200);

    let daemon = Daemon::start();
    let https = daemon.url().replace("http:", "https:");
    let said = refused(cli("push", &https).arg("--ca-cert").arg(&setting.authority.file));
    assert_says(&said, &["does not speak TLS", "http://"]);
    daemon.server().get("peek=1").expect(200);
}

#[test]
fn a_redirect_is_told_and_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = http::read_head(&mut stream);
        let location = "https://files.example/big_file_upload?file_name=secret";
        write!(stream, "HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").unwrap();
        head
    });
    let said = refused(&mut cli("push", &url));
    assert_says(&said, &["301", "https://files.example/big_file_upload", "--url"]);
    assert!(!said.contains("secret"), "{said}");
    assert!(server.join().unwrap().contains("/big_file_upload"));
}

#[test]
fn a_client_certificate_is_asked_for_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let clients = Authority::new(folder.path(), "clients");
    let setting = setting(&["--tls-client-ca", text(&clients.file)]);
    let push = |certificate: Option<&Certificate>| {
        let mut cli = setting.cli("push", &setting.authority.file);
        if let Some(Certificate { cert, key, .. }) = certificate {
            cli.arg("--client-cert").arg(cert).arg("--client-key").arg(key);
        }
        cli
    };
    assert_says(&refused(&mut push(None)), &["wants a client certificate", "--client-cert"]);
    // One of another authority, one of the server's own, and one that expired.
    let stranger = Authority::new(folder.path(), "stranger").issue("stranger", &["me"]);
    for wrong in [stranger, setting.authority.issue("me", &["me"]), clients.issue_expired("late", &["me"])] {
        assert_says(&refused(&mut push(Some(&wrong))), &["refuses the client certificate"]);
    }
    assert_eq!(setting.daemon.spools(), [""; 0]);
    let right = clients.issue("right", &["me"]);
    let file = data::file(folder.path(), "f", 2, 3 << 20);
    succeed(push(Some(&right)).arg(&file).args(["--slice-size", "1M"]));
    assert!(data::same(&file, &setting.daemon.finished("f")));
    let mut cli = setting.cli("status", &setting.authority.file);
    succeed(cli.env("BIGUP_CLIENT_CERT", &right.cert).env("BIGUP_CLIENT_KEY", &right.key));

    // Authorities are read again too.
    let later = Authority::new(folder.path(), "later");
    std::fs::copy(&later.file, &clients.file).unwrap();
    signal(setting.daemon.pid(), Signal::SIGHUP);
    eventually("the new authority counts", || {
        run(push(Some(&later.issue("new", &["me"]))).arg(&file)).status.success()
    });
    assert_says(&refused(&mut push(Some(&right))), &["refuses the client certificate"]);
}

#[test]
fn a_revoked_client_certificate_is_refused_also_where_the_list_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let clients = Authority::new(folder.path(), "clients");
    let (one, two) = (clients.issue("one", &["one"]), clients.issue("two", &["two"]));
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    let list = clients.revoke("list", &[], tomorrow);
    let setting = setting(&["--tls-client-ca", text(&clients.file), "--tls-client-crl", text(&list)]);
    let status = |Certificate { cert, key, .. }: &Certificate| {
        let mut cli = setting.cli("status", &setting.authority.file);
        cli.arg("--client-cert").arg(cert).arg("--client-key").arg(key);
        run(&mut cli)
    };
    assert!(status(&one).status.success() && status(&two).status.success());

    clients.revoke("list", &[&one], tomorrow);
    signal(setting.daemon.pid(), Signal::SIGHUP);
    eventually("the revoked one is refused", || !status(&one).status.success());
    let said = String::from_utf8_lossy(&status(&one).stderr).into_owned();
    assert_says(&said, &["refuses the client certificate"]);
    assert!(status(&two).status.success());

    // A list that is out of date may lack what was revoked since.
    clients.revoke("list", &[], SystemTime::now() - Duration::from_secs(3600));
    signal(setting.daemon.pid(), Signal::SIGHUP);
    eventually("nobody passes by an old list", || !status(&two).status.success());
}

#[test]
fn a_client_certificate_has_the_rights_of_the_token_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let clients = Authority::new(folder.path(), "clients");
    let (lab, host, other) =
        (clients.issue("lab 7", &[]), clients.issue("x", &["pc.lab"]), clients.issue("o", &["pc"]));
    let setting = setting(&["--tls-client-ca", text(&clients.file)]);
    let data = setting.daemon.data();
    for (name, certificate) in [("lab", "lab 7"), ("pc", "pc.lab")] {
        let prefix = format!("{name}/");
        let arguments = ["token", "new", name, "--certificate", certificate, "--prefix", &prefix, "--data-dir"];
        let made = bigupd(&[&arguments[..], &[text(&data)]].concat());
        assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    }
    let twice = bigupd(&["token", "new", "again", "--certificate", "lab 7", "--data-dir", text(&data)]);
    assert_says(&String::from_utf8_lossy(&twice.stderr), &["the token lab has that certificate already"]);
    let file = data::file(folder.path(), "f", 2, 3 << 20);
    let push = |Certificate { cert, key, .. }: &Certificate, name: &str| {
        let mut cli = setting.cli("push", &setting.authority.file);
        cli.arg("--client-cert").arg(cert).arg("--client-key").arg(key).arg(&file);
        cli.args(["--name", name, "--slice-size", "1M", "--retry-for", RETRY_FOR]);
        run(&mut cli)
    };
    for (certificate, name) in [(&lab, "lab/f"), (&host, "pc/f")] {
        let pushed = push(certificate, name);
        assert!(pushed.status.success(), "{pushed:?}");
        assert!(data::same(&file, &setting.daemon.finished(name)));
    }
    let denied = |certificate, name, says: &str| {
        let output = push(certificate, name);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_says(&String::from_utf8_lossy(&output.stderr), &[says]);
    };
    denied(&lab, "pc/g", "under lab/");
    denied(&other, "lab/g", "a token is needed here");
    eventually("the certificate is in the log", || {
        let log = setting.daemon.log();
        log.lines().any(|line| line.contains("finished lab/f") && line.contains("token=lab certificate=\"lab 7\""))
    });
    assert!(bigupd(&["token", "revoke", "lab", "--data-dir", text(&data)]).status.success());
    denied(&lab, "lab/g", "a token is needed here");
}

#[test]
fn mistakes_about_revocation_lists_are_told() {
    let setting = setting(&[]);
    let (ca, data) = (text(&setting.authority.file), text(&setting.path("data")).to_owned());
    let base = [&["--check-config", "--data-dir", &data][..], &setting.certificate.arguments()].concat();
    for (arguments, says) in [
        (&["--tls-client-crl", ca][..], "tls_client_crl needs tls_client_ca"),
        (&["--tls-client-ca", ca, "--tls-client-crl", ca], "no certificate revocation list in PEM"),
        (&["--tls-client-ca", ca, "--tls-client-crl", "/nowhere.crl"], "tls_client_crl: /nowhere.crl: No such file"),
    ] {
        let output = bigupd(&[&base[..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_says(&String::from_utf8_lossy(&output.stderr), &[says]);
    }
}

#[test]
fn a_client_certificate_lets_somebody_in_from_elsewhere_and_tls_alone_does_not() {
    let setting = setting(&[]);
    let data = text(&setting.path("data")).to_owned();
    let open = ["--check-config", "--data-dir", &data, "--listen", "0.0.0.0:0"];
    let with_tls = [&open[..], &setting.certificate.arguments()].concat();
    let output = bigupd(&with_tls);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_says(&String::from_utf8_lossy(&output.stderr), &["0.0.0.0:0", "tls_client_ca", "allow_anonymous"]);
    let output = bigupd(&[&with_tls[..], &["--tls-client-ca", text(&setting.authority.file)]].concat());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn certificates_change_under_a_running_push() {
    let setting = setting(&["--merger-idle", "500ms"]);
    let (daemon, first) = (&setting.daemon, &setting.authority);
    let second = Authority::new(setting.folder.path(), "second");
    let both = setting.path("both.pem");
    std::fs::write(&both, [std::fs::read(&first.file).unwrap(), std::fs::read(&second.file).unwrap()].concat())
        .unwrap();
    let content = data::bytes(3, 8 << 20);
    let (one, two) = content.split_at(4 << 20);
    let mut push = setting.cli("push", &both);
    push.args(["-", "--name", "f", "--slice-size", "64K"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut push = push.spawn().unwrap();
    let mut input = push.stdin.take().unwrap();
    input.write_all(one).unwrap();
    let old = daemon.server_trusting(&first.file);
    eventually("the push is on its way", || old.try_get("peek=1&file_name=f").unwrap().held().len() > 8);

    setting.certificate.become_like(&second.issue("new", &HOSTS));
    signal(daemon.pid(), Signal::SIGHUP);
    let fresh = |authority: &Authority| daemon.server_trusting(&authority.file).try_get("peek=1");
    eventually("new connections see the new certificate", || fresh(&second).is_ok());
    assert!(fresh(first).is_err(), "and not the old one");
    old.get("peek=1").expect(200);
    input.write_all(two).unwrap();
    drop(input);
    assert!(push.wait().unwrap().success());
    assert!(std::fs::read(daemon.finished("f")).unwrap() == content);

    // A broken file changes nothing.
    std::fs::write(&setting.certificate.cert, "nonsense").unwrap();
    signal(daemon.pid(), Signal::SIGHUP);
    eventually("the mistake is in the log", || daemon.log().contains("the certificates in use stay as they are"));
    assert_says(&daemon.log(), &["ERROR", "server-cert.pem holds no certificate"]);
    fresh(&second).unwrap().expect(200);
}

#[test]
fn a_session_of_old_certificates_is_not_resumed_under_new_ones() {
    let setting = setting(&[]);
    let session = setting.path("session");
    let connect = |what: &str| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-tls1_2", "-connect", http::address(setting.daemon.url()), what]).arg(&session);
        String::from_utf8_lossy(&run(&mut client).stdout).into_owned()
    };
    assert_says(&connect("-sess_out"), &["New, TLSv1.2"]);
    assert_says(&connect("-sess_in"), &["Reused, TLSv1.2"]);
    signal(setting.daemon.pid(), Signal::SIGHUP);
    eventually("the files are read again", || setting.daemon.log().contains("SIGHUP"));
    assert_says(&connect("-sess_in"), &["New, TLSv1.2"]);
}

#[test]
fn sighup_ends_no_daemon_without_tls() {
    let daemon = Daemon::start();
    signal(daemon.pid(), Signal::SIGHUP);
    eventually("it is in the log", || daemon.log().contains("SIGHUP"));
    daemon.server().get("peek=1").expect(200);
}

#[test]
fn mistakes_in_files_are_told_before_anything_is_bound() {
    let setting = setting(&[]);
    let other = setting.authority.issue("other", &HOSTS);
    let (cert, key) = (text(&setting.certificate.cert), text(&setting.certificate.key));
    let (nowhere, nonsense) = (setting.path("nowhere"), setting.path("nonsense"));
    std::fs::write(&nonsense, "nonsense").unwrap();
    let garbage = setting.path("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n").unwrap();
    let (nowhere, nonsense, garbage) = (text(&nowhere), text(&nonsense), text(&garbage));
    let data = text(&setting.path("data")).to_owned();
    for (cert, key, client_ca, says) in [
        (nowhere, key, None, &["tls_cert: ", nowhere, "No such file"][..]),
        (nonsense, key, None, &["tls_cert: ", nonsense, "no certificate in PEM"]),
        (key, key, None, &["tls_cert: ", key, "no certificate in PEM"]),
        (garbage, key, None, &["tls_cert: ", garbage]),
        (cert, nowhere, None, &["tls_key: ", nowhere, "No such file"]),
        (cert, cert, None, &["tls_key: ", cert, "no private key in PEM"]),
        (cert, text(&other.key), None, &["tls_key: ", text(&other.key), cert, "is not that of"]),
        (cert, key, Some(nowhere), &["tls_client_ca: ", nowhere, "No such file"]),
        (cert, key, Some(garbage), &["tls_client_ca: ", garbage, "certificate 1"]),
        (nowhere, nonsense, Some(garbage), &["tls_cert: ", "tls_key: ", "tls_client_ca: "]),
    ] {
        let mut arguments = vec!["--data-dir", &data, "--tls-cert", cert, "--tls-key", key];
        arguments.extend(client_ca.into_iter().flat_map(|ca| ["--tls-client-ca", ca]));
        // The port is taken: whoever came as far as that would end with 1.
        for more in [&["--listen", http::address(setting.daemon.url())][..], &["--check-config"]] {
            let output = bigupd(&[&arguments[..], more].concat());
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert_says(&String::from_utf8_lossy(&output.stderr), says);
        }
    }
    assert!(!setting.path("data").exists());
}

#[test]
fn mistakes_in_files_of_the_client_are_told() {
    let setting = setting(&[]);
    let ca = &setting.authority.file;
    let other = setting.authority.issue("other", &HOSTS);
    let Certificate { cert, key, .. } = &setting.certificate;
    let garbage = setting.path("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n").unwrap();
    assert_says(&refused(&mut setting.cli("push", key)), &["--ca-cert: ", text(key), "no certificate in PEM"]);
    assert_says(&refused(&mut setting.cli("push", &garbage)), &["--ca-cert: ", text(&garbage), "certificate 1"]);
    let with = |cert: &Path, key: &Path| {
        let mut cli = setting.cli("push", ca);
        refused(cli.arg("--client-cert").arg(cert).arg("--client-key").arg(key))
    };
    assert_says(&with(Path::new("/nowhere"), key), &["--client-cert: ", "/nowhere"]);
    assert_says(&with(cert, cert), &["--client-key: ", text(cert), "no private key in PEM"]);
    assert_says(&with(cert, &other.key), &["--client-key: ", text(&other.key), text(cert)]);
}

#[test]
fn a_certificate_that_clients_would_refuse_and_an_open_key_are_warned_of() {
    let setting = setting(&[]);
    assert!(!setting.daemon.log().contains("tls_"), "{}", setting.daemon.log());
    let Certificate { key, .. } = &setting.certificate;
    std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let daemon = Daemon::with(&setting.certificate.arguments());
    assert_says(&daemon.log(), &["WARN", "tls_key", text(key), "chmod"]);
    // What `openssl req -x509` makes unless it is told otherwise: an authority, which is no server.
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(setting.folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let authority = Certificate { cert: setting.path("cert.pem"), key: setting.path("key.pem"), serial: 0 };
    let daemon = Daemon::with(&authority.arguments());
    assert_says(&daemon.log(), &["WARN", "clients will refuse", text(&authority.cert), "CA:FALSE"]);
    let said = refused(cli("push", daemon.url()).arg("--ca-cert").arg(&authority.cert));
    assert_says(&said, &["the server's certificate cannot be accepted", "CA:FALSE"]);
}

#[test]
fn a_client_that_dawdles_in_its_handshake_is_closed_and_holds_up_no_stop() {
    let setting = setting(&["--header-timeout", "1s"]);
    let end_of = |mut stream: std::net::TcpStream| {
        let mut rest = vec![];
        // Whether it ends or is reset: it is over.
        let _ = stream.read_to_end(&mut rest);
    };
    end_of(http::connect(setting.daemon.url()));
    let mut half = http::connect(setting.daemon.url());
    half.write_all(&[22, 3, 1, 2, 0]).unwrap();
    end_of(half);
    assert_says(&setting.daemon.log(), &["the TLS handshake took too long"]);

    let patient = ["--header-timeout", "300s", "--stop-grace", "50s"];
    let mut daemon = Daemon::with(&[&setting.certificate.arguments()[..], &patient].concat());
    let mut silent = http::connect(daemon.url());
    silent.write_all(&[22]).unwrap();
    // Connections are accepted in turn: once this one is answered, the silent one is in its handshake.
    daemon.server_trusting(&setting.authority.file).get("peek=1").expect(200);
    let began = Instant::now();
    daemon.stop();
    assert!(began.elapsed() < Duration::from_secs(30), "it waited {:?}", began.elapsed());
}

#[test]
fn one_connection_too_many_reads_why_over_tls_too() {
    let setting = setting(&["--max-connections", "1"]);
    // It holds its place while its handshake is due.
    let _silent = http::connect(setting.daemon.url().trim_start_matches("https://"));
    let mut push = setting.cli("push", &setting.authority.file);
    let output = run(push.args(["/etc/hostname", "--retry-for", "1s"]));
    assert_says(&String::from_utf8_lossy(&output.stderr), &["1 connections are open"]);
}

#[test]
fn a_push_goes_on_after_everything_was_killed() {
    let mut setting = setting(&["--merger-idle", "500ms"]);
    let file = data::file(setting.folder.path(), "f", 4, 64 << 20);
    let push = |setting: &Setting| {
        let mut push = setting.cli("push", &setting.authority.file);
        push.arg(&file).args(["--slice-size", "64K", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
        push.spawn().unwrap()
    };
    let mut killed = push(&setting);
    let server = setting.daemon.server_trusting(&setting.authority.file);
    eventually("some slices are held", || server.get("peek=1&file_name=f").held().len() >= 200);
    kill_9(&mut killed);
    // The next one meets the daemon's death while it is at work.
    let next = push(&setting);
    setting.daemon.kill_9();
    setting.daemon.run();
    let output = next.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8(output.stdout).unwrap();
    let done: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(done["file_digest"], data::digest(&file), "{out}");
    assert!(done["bytes_held"].as_u64().unwrap() >= 200 * (64 << 10), "{done}");
    assert!(data::same(&file, &setting.daemon.finished("f")));
    setting.daemon.eventually_clean();
}

/// The shell commands in README's block behind this marker.
#[test]
fn the_certificate_of_the_readme_serves_our_client_and_curl() {
    let folder = tempfile::tempdir().unwrap();
    let made = run(Command::new("sh")
        .args(["-euc", &docs::block("README.md", "tests/tests/programs/tls.rs: certificate")])
        .current_dir(folder.path()));
    assert!(made.status.success(), "{made:?}");
    let certificate =
        Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem"), serial: 0 };
    let daemon = Daemon::with(&certificate.arguments());
    assert!(!daemon.log().contains("tls_"), "{}", daemon.log());
    for host in HOSTS {
        let url = daemon.url().replace("127.0.0.1", host);
        let file = data::file(folder.path(), host, 5, 2 << 20);
        succeed(cli("push", &url).arg("--ca-cert").arg(&certificate.cert).arg(&file).args(["--slice-size", "1M"]));
        assert!(data::same(&file, &daemon.finished(host)));
    }
    // A client that is not ours, over both versions of TLS.
    let file = data::file(folder.path(), "slice", 6, 1 << 20);
    for version in ["1.2", "1.3"] {
        let curl = |query: &str, more: &[&str]| -> Value {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--tls-max", version, &format!("--tlsv{version}")]).args(more);
            curl.arg("--cacert")
                .arg(&certificate.cert)
                .arg(format!("{}/big_file_upload?{query}&source=curl", daemon.url()));
            serde_json::from_str(&succeed(&mut curl)).unwrap()
        };
        let name = format!("curl-{version}");
        assert_eq!(curl(&format!("file_name={name}&slice_num=2"), &[])["status"], 200);
        let body = format!("@{}", file.display());
        for id in 0..2 {
            let query = format!("file_name={name}&slice_id={id}&slice_size={}", 1 << 20);
            let answer = curl(&query, &["-H", "Content-Type: application/octet-stream", "--data-binary", &body]);
            assert_eq!(answer["status"], 200, "{answer}");
        }
        assert_eq!(curl(&format!("file_name={name}&slice_num=2&wait=50"), &[])["is_uploaded"], 1);
        assert_eq!(std::fs::read(daemon.finished(&name)).unwrap(), std::fs::read(&file).unwrap().repeat(2));
    }
    let untrusting = run(Command::new("curl").args(["-sS", "--cacert", "/etc/hostname", daemon.url()]));
    assert!(!untrusting.status.success());
}

#[test]
fn only_http_1_1_is_offered() {
    let setting = setting(&[]);
    let offer = |protocols: &str| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", http::address(setting.daemon.url()), "-alpn", protocols, "-CAfile"]);
        let output = run(client.arg(&setting.authority.file));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_says(&offer("h2,http/1.1"), &["ALPN protocol: http/1.1", "Verification: OK"]);
    assert!(!offer("h2").contains("ALPN protocol: h2"));
    Server::trusting(setting.daemon.url(), &setting.authority.file).get("peek=1").expect(200);
}
