//! bigup, as it is by default and with every slice synced before it is answered; and its daemon behind clients of others.

use super::{Peer, Started, made, program, tus};
use crate::server::{Server, free_port};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bigup_tests::certificates::Authority;
use bigup_tests::programs;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

pub(super) fn start(folder: &Path) -> anyhow::Result<Started> {
    let usual = peer("bigup", &folder.join("usual"), &[])?;
    let synced = peer("bigup, slices synced", &folder.join("synced"), &["--slice-ack", "synced"])?;
    Ok((None, vec![usual, synced]))
}

/// Its daemon behind curl, which PUTs a file.
pub(super) fn by_put(folder: &Path) -> anyhow::Result<Started> {
    let (curl, (server, stored)) = (program("curl")?, served(folder)?);
    let url = format!("{}/content/", server.url());
    let send = move |file: &Path, name: &str| {
        let mut command = Command::new(&curl);
        command.args(["-sSf", "-o", "/dev/null", "-T"]).arg(file).arg(format!("{url}{name}"));
        command
    };
    let peer = Peer::new("curl → bigup, PUT", stored, Some(server), Box::new(send)).serving("/content/");
    Ok((None, vec![peer]))
}

/// Its daemon behind clients of tus.
pub(super) fn by_tus(folder: &Path) -> anyhow::Result<Started> {
    let mut all = vec![by_curl(&folder.join("curl"))?];
    // Modules for node may be absent.
    for (name, parallel) in [("tus-js → bigup", 1), ("tus-js ×4 → bigup", 4)] {
        all.extend(by_tus_js(name, parallel, &folder.join(format!("tus-js-{parallel}"))).ok());
    }
    Ok((None, all))
}

/// One request of tus, with the whole file as its body, by curl.
fn by_curl(data: &Path) -> anyhow::Result<Peer> {
    let (curl, (server, stored)) = (program("curl")?, served(data)?);
    // Without a slash at its end: curl would add the name of the file.
    let url = format!("http://127.0.0.1:{}/files", server.port);
    let send = move |file: &Path, name: &str| {
        let len = file.metadata().map_or(0, |found| found.len());
        let metadata = format!("Upload-Metadata: filename {}", STANDARD.encode(name));
        let mut command = Command::new(&curl);
        command.args(["-sSf", "-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", &metadata]);
        command.args(["-H", &format!("Upload-Length: {len}"), "-H", "Content-Type: application/offset+octet-stream"]);
        command.arg("-T").arg(file).arg(&url);
        command
    };
    Ok(Peer::new("curl → bigup, tus", stored, Some(server), Box::new(send)))
}

fn by_tus_js(name: &'static str, parallel: u16, data: &Path) -> anyhow::Result<Peer> {
    let (server, stored) = served(data)?;
    let send = tus::client(server.port, parallel, 0, None)?;
    Ok(Peer::new(name, stored, Some(server), send))
}

/// Its daemon behind `bigup-cli sync`, which sends folders only.
pub(super) fn by_sync(folder: &Path) -> anyhow::Result<Started> {
    let (server, stored) = served(folder)?;
    let (port, cache) = (server.port, made(folder, "cache")?);
    let sync = move |path: &Path, name: &str| {
        let mut command = programs::cli();
        command.env("XDG_CACHE_HOME", &cache).args(["sync", "--quiet", "--url", &format!("http://127.0.0.1:{port}")]);
        command.arg(path).arg(format!("{name}/"));
        command
    };
    let peer = Peer::new("bigup-cli sync", stored, Some(server), Box::new(sync.clone()));
    Ok((None, vec![peer.with_folders(Box::new(sync))]))
}

/// A daemon, and where it stores.
pub(super) fn served(data: &Path) -> anyhow::Result<(Arc<Server>, PathBuf)> {
    std::fs::create_dir_all(data)?;
    Ok((Arc::new(daemon(data, &[])?), made(data, "files")?))
}

/// bigup over TLS.
pub(super) fn over_tls(folder: &Path) -> anyhow::Result<Started> {
    let authority = Authority::new(folder, "authority");
    let certificate = authority.issue("server", &["127.0.0.1"]);
    let trusted = ["--ca-cert".into(), authority.file.into_os_string()];
    let peer = peer_of("bigup", &folder.join("data"), &certificate.arguments(), "https", trusted.to_vec())?;
    Ok((None, vec![peer]))
}

fn peer(name: &'static str, data: &Path, settings: &[&str]) -> anyhow::Result<Peer> {
    peer_of(name, data, settings, "http", vec![])
}

fn peer_of(
    name: &'static str,
    data: &Path,
    settings: &[&str],
    scheme: &'static str,
    arguments: Vec<OsString>,
) -> anyhow::Result<Peer> {
    std::fs::create_dir_all(data)?;
    let server = Arc::new(daemon(data, settings)?);
    let port = server.port;
    let push = move |path: &Path, name: &str| {
        let mut command = programs::cli();
        let url = format!("{scheme}://127.0.0.1:{port}");
        command.arg("push").arg(path).args(["--name", name, "--json", "--url", &url]).args(&arguments);
        command
    };
    let stored = made(data, "files")?;
    Ok(Peer::new(name, stored, Some(server), Box::new(push.clone())).with_folders(Box::new(push)))
}

/// A daemon on a data folder that is there.
///
/// # Errors
/// It cannot be started.
pub fn daemon(data: &Path, settings: &[&str]) -> anyhow::Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(programs::path("bigupd"));
    command.arg("--data-dir").arg(data).args(["--listen", &format!("127.0.0.1:{port}")]).args(settings);
    Server::start(command.env("BIGUP_LOG", "warn"), port, data.parent().unwrap_or(data))
}
