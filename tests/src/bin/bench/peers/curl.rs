//! curl that PUTs to servers of WebDAV: nginx, the usual one, and dufs, one in Rust.

use super::{Peer, Started, made, program, versions};
use crate::measure::files_below;
use crate::server::{Server, free_port};
use bigup_tests::certificates::Authority;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What nginx is told. Bodies are written beside the files, so that a rename is enough.
const NGINX: &str = "daemon off; worker_processes 2; worker_rlimit_nofile 10000; pid {folder}/pid; error_log {folder}/server.log; {user}
events { worker_connections 4096; }
http {
    access_log off; client_max_body_size 0; sendfile on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/t1; fastcgi_temp_path {folder}/t2;
    uwsgi_temp_path {folder}/t3; scgi_temp_path {folder}/t4;
    server {
        listen 127.0.0.1:{port}{tls};
        location / { root {folder}/files; dav_methods PUT DELETE MKCOL; create_full_put_path on; }
    }
}
";

pub(super) fn nginx(folder: &Path) -> anyhow::Result<Started> {
    let (server, stored, started) = start_nginx(folder, "")?;
    let names = ["curl → nginx", "curl --parallel → nginx"];
    let peers = peers(names, &stored, &server, &program("curl")?).into_iter().zip([Some("/"), None]);
    let peers = peers.map(|(peer, content)| content.into_iter().fold(peer, Peer::serving)).collect();
    Ok((started, peers))
}

/// nginx over TLS, by HTTP 1.1 as bigup.
pub(super) fn nginx_over_tls(folder: &Path) -> anyhow::Result<Started> {
    let authority = Authority::new(folder, "authority");
    let certificate = authority.issue("server", &["127.0.0.1"]);
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    let (server, stored, versions) =
        start_nginx(folder, &format!(" ssl; ssl_certificate {cert}; ssl_certificate_key {key}"))?;
    let (curl, port) = (program("curl")?, server.port);
    let send = move |file: &Path, name: &str| {
        let mut command = Command::new(&curl);
        command.args(["-sSf", "--http1.1", "-o", "/dev/null", "--cacert"]).arg(&authority.file).arg("-T").arg(file);
        command.arg(format!("https://127.0.0.1:{port}/{name}"));
        command
    };
    Ok((versions, vec![Peer::new("curl → nginx", stored, Some(server), Box::new(send))]))
}

/// A running nginx with this behind the address that it listens on: it, the folder of its files, and versions.
fn start_nginx(folder: &Path, tls: &str) -> anyhow::Result<(Arc<Server>, PathBuf, Option<String>)> {
    let (nginx, curl) = (program("nginx")?, program("curl")?);
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let text = NGINX.replace("{folder}", &folder.display().to_string()).replace("{port}", &port.to_string());
    let settings = folder.join("nginx.conf");
    std::fs::write(&settings, text.replace("{user}", user).replace("{tls}", tls))?;
    let mut command = Command::new(&nginx);
    command.arg("-c").arg(&settings).arg("-p").arg(folder).arg("-e").arg(folder.join("server.log"));
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    Ok((server, stored, versions(&[(&nginx, "-v"), (&curl, "--version")])))
}

pub(super) fn dufs(folder: &Path) -> anyhow::Result<Started> {
    let (dufs, curl) = (program("dufs")?, program("curl")?);
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let mut command = Command::new(&dufs);
    command.args(["--allow-all", "--bind", "127.0.0.1", "--log-format", "", "--port", &port.to_string()]).arg(&stored);
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let names = ["curl → dufs", "curl --parallel → dufs"];
    Ok((versions(&[(&dufs, "--version")]), peers(names, &stored, &server, &curl)))
}

/// One that sends files one after the other, and one that sends those of a folder side by side.
fn peers(names: [&'static str; 2], stored: &Path, server: &Arc<Server>, curl: &Path) -> Vec<Peer> {
    let port = server.port;
    names
        .into_iter()
        .zip([&[][..], &["--parallel"][..]])
        .map(|(name, options)| {
            let (one, many) = (curl.to_owned(), curl.to_owned());
            let send = move |file: &Path, name: &str| {
                let mut command = Command::new(&one);
                command
                    .args(["-sSf", "-o", "/dev/null", "-T"])
                    .arg(file)
                    .arg(format!("http://127.0.0.1:{port}/{name}"));
                command
            };
            let send_folder = move |folder: &Path, name: &str| {
                let mut command = Command::new(&many);
                command
                    .args(["-sSf", "--config"])
                    .arg(list(folder, &format!("http://127.0.0.1:{port}/{name}")))
                    .args(options);
                command
            };
            Peer::new(name, stored.to_owned(), Some(server.clone()), Box::new(send)).with_folders(Box::new(send_folder))
        })
        .collect()
}

/// What curl reads of a folder: each file with its URL. Over one connection, unless it is told to work side by side.
fn list(folder: &Path, url: &str) -> PathBuf {
    let files = files_below(folder).expect("the source can be read");
    let pair = |file: &PathBuf| {
        let below = file.strip_prefix(folder).expect("it was found there");
        format!("upload-file = \"{}\"\nurl = \"{url}/{}\"\noutput = /dev/null\n", file.display(), below.display())
    };
    let path = folder.with_extension(format!("{}.curl", url.rsplit(':').next().unwrap_or_default().replace('/', "-")));
    std::fs::write(&path, files.iter().map(pair).collect::<String>()).expect("there is disk space");
    path
}
