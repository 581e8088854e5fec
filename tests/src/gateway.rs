//! nginx, Caddy and HAProxy before daemons, each with its configuration of docs/ and everything it writes in a folder of
//! its own.

use crate::certificates::Certificate;
use crate::process::{PATIENCE, eventually, signal};
use crate::{docs, http, usage};
use nix::sys::signal::Signal;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The block of docs/behind-a-proxy.md behind the marker `name`.
///
/// # Panics
/// There is none.
pub fn documented(name: &str) -> String {
    docs::block("docs/behind-a-proxy.md", &format!("tests/tests/programs/behind_a_proxy.rs: {name}"))
}

/// `text` with `from` replaced.
///
/// # Panics
/// It does not contain `from` exactly once.
pub fn changed(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} in\n{text}");
    text.replace(from, to)
}

/// A configuration of the document's, before the daemon at `upstream`: its URL, or unix: and a path.
fn before(configuration: &str, upstream: &str) -> String {
    match upstream.strip_prefix("unix:") {
        Some(path) => changed(configuration, "/run/bigup/bigupd.sock", path),
        None => changed(configuration, "127.0.0.1:8888", http::address(upstream)),
    }
}

/// A running proxy.
pub struct Gateway {
    folder: tempfile::TempDir,
    child: Child,
    /// Its command line, for nginx's `-s`.
    command: Vec<String>,
    /// Where clients push to.
    pub url: String,
    /// The same by plain HTTP.
    pub plain: String,
}

impl Gateway {
    /// nginx with `configuration`, which is the document's or a changed one, before the daemon at `upstream`.
    ///
    /// # Panics
    /// It does not start.
    pub fn nginx(configuration: &str, upstream: &str, certificate: &Certificate) -> Gateway {
        Gateway::nginx_of(&before(configuration, upstream), certificate)
    }

    /// nginx with `configuration`, which names daemons as docs/several-daemons.md does, before two daemons.
    ///
    /// # Panics
    /// It does not start.
    pub fn nginx_before_two(configuration: &str, upstreams: [&str; 2], certificate: &Certificate) -> Gateway {
        let [one, two] = upstreams.map(http::address);
        Gateway::nginx_of(&configuration.replace("10.0.0.1:8888", one).replace("10.0.0.2:8888", two), certificate)
    }

    fn nginx_of(configuration: &str, certificate: &Certificate) -> Gateway {
        let configuration =
            changed(configuration, "/etc/ssl/certs/files.example.org.pem", path_text(&certificate.cert));
        let configuration =
            changed(&configuration, "/etc/ssl/private/files.example.org.key", path_text(&certificate.key));
        Gateway::start(|folder, port| {
            let plain_port = free_port();
            let listen = format!("listen 127.0.0.1:{port} ssl; listen 127.0.0.1:{plain_port};");
            let site = changed(&configuration, "listen 443 ssl;", &listen);
            let temp = folder.join("temp");
            std::fs::create_dir_all(&temp).expect("the folder can be made");
            // Without `user` its workers could not reach what root owns here.
            let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
            let whole = format!(
                "{user} daemon off; pid {0}/pid; error_log {0}/log; worker_processes 2; events {{}}\n\
                 http {{ access_log off; client_body_temp_path {0}/temp; proxy_temp_path {0}/temp;\n\
                 fastcgi_temp_path {0}/temp; uwsgi_temp_path {0}/temp; scgi_temp_path {0}/temp;\n{site}\n}}\n",
                folder.display()
            );
            let file = folder.join("nginx.conf");
            std::fs::write(&file, whole).expect("the configuration can be written");
            let nginx = in_sbin("nginx");
            let arguments = [&nginx, "-p", path_text(folder), "-c", path_text(&file), "-e", "log"];
            let urls = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{plain_port}"));
            (arguments.map(str::to_owned).to_vec(), urls)
        })
    }

    /// Caddy with the document's configuration, by plain HTTP, before the daemon at `upstream`.
    ///
    /// # Panics
    /// It does not start.
    pub fn caddy(configuration: &str, upstream: &str) -> Gateway {
        let configuration = before(configuration, upstream);
        Gateway::start(|folder, port| {
            let url = format!("http://127.0.0.1:{port}");
            // For any name of the host: tests that write requests by hand give none that counts.
            let address = format!("http://:{port} {{\n\tbind 127.0.0.1");
            let site = changed(&configuration, "files.example.org {", &address);
            let file = folder.join("Caddyfile");
            let whole = format!("{{\n\tadmin off\n}}\n{site}\n");
            std::fs::write(&file, whole).expect("the configuration can be written");
            let arguments = ["caddy", "run", "--adapter", "caddyfile", "--config", path_text(&file)];
            (arguments.map(str::to_owned).to_vec(), (url.clone(), url))
        })
    }

    /// HAProxy with the configuration of docs/several-daemons.md, by plain HTTP, before two daemons.
    ///
    /// # Panics
    /// It does not start.
    pub fn haproxy(configuration: &str, upstreams: [&str; 2]) -> Gateway {
        let [one, two] = upstreams.map(http::address);
        Gateway::haproxy_of(&changed(&changed(configuration, "10.0.0.1:8888", one), "10.0.0.2:8888", two))
    }

    /// HAProxy with a configuration whose daemons are where they are.
    ///
    /// # Panics
    /// It does not start.
    pub fn haproxy_of(configuration: &str) -> Gateway {
        Gateway::start(|folder, port| {
            let url = format!("http://127.0.0.1:{port}");
            let whole = changed(configuration, "bind :8888", &format!("bind 127.0.0.1:{port}"));
            let file = folder.join("haproxy.cfg");
            std::fs::write(&file, whole + "\n").expect("the configuration can be written");
            let arguments = [in_sbin("haproxy"), "-db".to_owned(), "-f".to_owned(), path_text(&file).to_owned()];
            (arguments.to_vec(), (url.clone(), url))
        })
    }

    /// Starts what `prepare` makes of a folder and a port; at another port where that one was taken meanwhile.
    fn start(prepare: impl Fn(&Path, u16) -> (Vec<String>, (String, String))) -> Gateway {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let (command, (url, plain)) = prepare(folder.path(), free_port());
            let mut child = spawn(&command, folder.path());
            let listens = || TcpStream::connect(http::address(&plain)).is_ok();
            eventually("the proxy listens or ends", || child.try_wait().unwrap().is_some() || listens());
            if child.try_wait().expect("it was started").is_none() {
                return Gateway { folder, child, command, url, plain };
            }
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline && log.contains("in use"), "{command:?} ended:\n{log}");
        }
    }

    /// nginx: has it read its configuration again. Done when new processes took over.
    pub fn reload(&self) {
        let before = self.workers();
        let reload = Command::new(&self.command[0]).args(&self.command[1..]).args(["-s", "reload"]).output();
        let reload = reload.expect("nginx can be started");
        assert!(reload.status.success(), "{reload:?}");
        eventually("new processes took over", || self.workers().iter().any(|worker| !before.contains(worker)));
    }

    fn workers(&self) -> Vec<u32> {
        usage::tree(self.child.id()).into_iter().filter(|pid| *pid != self.child.id()).collect()
    }

    /// nginx: where it puts what it gathers.
    pub fn temp(&self) -> PathBuf {
        self.folder.path().join("temp")
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the proxy\n{}---", self.log());
        }
        // Not killed: nginx's other processes are for it to end.
        signal(self.child.id(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn spawn(command: &[String], folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("the log can be opened");
    let mut start = Command::new(&command[0]);
    start.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // Caddy keeps things at home.
    start.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    start.spawn().unwrap_or_else(|e| panic!("{} cannot be started ({e}): tests/run installs it", command[0]))
}

/// The program lies where only root's search path leads.
fn in_sbin(program: &str) -> String {
    let debians = format!("/usr/sbin/{program}");
    if Path::new(&debians).exists() { debians } else { program.to_owned() }
}

/// A port that nobody listens at, for now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
