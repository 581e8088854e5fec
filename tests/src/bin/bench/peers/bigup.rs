//! bigup, as it is by default and with every slice synced before it is answered.

use super::{Peer, Started, made};
use crate::server::{Server, free_port};
use bigup_tests::programs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

pub(super) fn start(folder: &Path) -> anyhow::Result<Started> {
    let usual = peer("bigup", &folder.join("usual"), &[])?;
    let synced = peer("bigup, slices synced", &folder.join("synced"), &["--slice-ack", "synced"])?;
    Ok((None, vec![usual, synced]))
}

fn peer(name: &'static str, data: &Path, settings: &[&str]) -> anyhow::Result<Peer> {
    std::fs::create_dir_all(data)?;
    let server = Arc::new(daemon(data, settings)?);
    let port = server.port;
    let push = move |path: &Path, name: &str| {
        let mut command = programs::cli();
        let url = format!("http://127.0.0.1:{port}");
        command.arg("push").arg(path).args(["--name", name, "--json", "--url", &url]);
        command
    };
    let stored = made(data, "files")?;
    Ok(Peer::new(name, stored, Some(server), Box::new(push)).with_folders(Box::new(push)))
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
