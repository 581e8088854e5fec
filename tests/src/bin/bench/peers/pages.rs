//! Pages that send a file, in Chromium: that of bigup, the least that a page can do, copyparty's, and Uppy on the tus server
//! of its makers.

use super::{Peer, Started, bigup, made, peers_folder, program, tus, versions};
use crate::server::{Server, free_port};
use anyhow::ensure;
use bigup_tests::docs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

pub(super) fn own(folder: &Path) -> anyhow::Result<Started> {
    let (server, stored) = bigup::served(folder)?;
    Ok((chromium(), vec![page("the page of bigup", "bigup", stored, server)?]))
}

/// One PUT of the whole file, to the daemon.
pub(super) fn put(folder: &Path) -> anyhow::Result<Started> {
    let (server, stored) = bigup::served(folder)?;
    Ok((None, vec![page("one PUT (floor)", "put", stored, server)?]))
}

pub(super) fn copyparty(folder: &Path) -> anyhow::Result<Started> {
    let (copyparty, stored, port) = (program("copyparty")?, made(folder, "files")?, free_port()?);
    let mut command = Command::new(&copyparty);
    // What it knows of files lies elsewhere than the files, which are to be counted.
    command.args(["-q", "-i", "127.0.0.1", "-p", &port.to_string(), "-v", &format!("{}::rw", stored.display())]);
    command.env("HOME", made(folder, "home")?).env("XDG_CONFIG_HOME", made(folder, "home")?);
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let peer = page("copyparty", "copyparty", stored, server)?;
    Ok((versions(&[(&copyparty, "--version")]), vec![peer]))
}

pub(super) fn uppy(folder: &Path) -> anyhow::Result<Started> {
    let (node, script) = (program("node")?, tus::script("site.mjs")?);
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let mut command = Command::new(node);
    command.arg(script).arg(port.to_string()).arg(&stored);
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let modules: Vec<String> = ["@uppy/tus", "@tus/server"].into_iter().filter_map(tus::module_version).collect();
    Ok((Some(modules.join(", ")), vec![page("Uppy → @tus/server", "uppy", stored, server)?]))
}

/// A page of `server`, known to `tests/clients/page/send.mjs` as `kind`.
fn page(name: &'static str, kind: &'static str, stored: PathBuf, server: Arc<Server>) -> anyhow::Result<Peer> {
    let node = program("node")?;
    program("chromium")?;
    ensure!(peers_folder()?.exists(), "tests/bench installs what it needs");
    let (script, url) = (docs::root().join("tests/clients/page/send.mjs"), server.url());
    let send = move |file: &Path, name: &str| {
        let mut command = Command::new(&node);
        command.arg(&script).args([kind, &url]).arg(file).arg(name);
        command
    };
    Ok(Peer::new(name, stored, Some(server), Box::new(send)))
}

fn chromium() -> Option<String> {
    versions(&[(&program("chromium").ok()?, "--version")])
}
