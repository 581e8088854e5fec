//! The tus protocol: tus-js-client on node, to the server of its makers and to rustus. Files keep the names that servers
//! give them, and only rustus joins parts that came side by side.

use super::{Peer, Started, made, peers_folder, program, versions};
use crate::server::{Server, free_port};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Bytes of a request to rustus, which holds each in memory: those of a slice of bigup's.
const CHUNK: u64 = 8 << 20;

pub(super) fn node(folder: &Path) -> anyhow::Result<Started> {
    let (node, script) = (program("node")?, script("server.mjs")?);
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let mut command = Command::new(&node);
    command.arg(script).arg(port.to_string()).arg(&stored);
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let peer = Peer::new("tus-js → @tus/server", stored, Some(server), client(port, 1, 0, None)?);
    let modules = ["tus-js-client", "@tus/server"].map(module_version).into_iter().collect::<Option<Vec<_>>>();
    let version = versions(&[(&node, "--version")]).zip(modules).map(|(node, m)| format!("{node}, {}", m.join(", ")));
    Ok((version, vec![peer]))
}

pub(super) fn rustus(folder: &Path) -> anyhow::Result<Started> {
    let rustus = program("rustus")?;
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let mut command = Command::new(&rustus);
    command.args(["--host", "127.0.0.1", "--log-level", "WARN", "--remove-parts", "true"]);
    command.args(["--port", &port.to_string(), "--max-body-size", &(2 * CHUNK).to_string()]);
    command.arg("--data-dir").arg(&stored).arg("--info-dir").arg(&stored);
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let mut peers = vec![];
    for (name, parallel) in [("tus-js → rustus", 1), ("tus-js ×4 → rustus", 4)] {
        peers.push(Peer::new(name, stored.clone(), Some(server.clone()), client(port, parallel, CHUNK, None)?));
    }
    Ok((versions(&[(&rustus, "--version")]), peers))
}

/// The client for a server of this port that remembers its upload in a file: a second run goes on where the first one was
/// ended.
///
/// # Errors
/// It is not installed.
pub fn remembering(port: u16, state: PathBuf) -> anyhow::Result<super::Send> {
    client(port, 1, 0, Some(state))
}

pub(super) fn client(port: u16, parallel: u16, chunk: u64, state: Option<PathBuf>) -> anyhow::Result<super::Send> {
    let (node, script) = (program("node")?, script("client.mjs")?);
    let state = state.unwrap_or_else(|| "-".into());
    Ok(Box::new(move |file: &Path, name: &str| {
        let mut command = Command::new(&node);
        command.arg(&script).arg(format!("http://127.0.0.1:{port}/files")).arg(file).arg(name);
        command.args([parallel.to_string(), chunk.to_string()]).arg(&state);
        command
    }))
}

pub(super) fn script(name: &str) -> anyhow::Result<PathBuf> {
    let folder = peers_folder()?;
    ensure!(folder.join("node_modules/tus-js-client").exists(), "its modules for node are not installed");
    Ok(folder.join(name))
}

pub(super) fn module_version(name: &str) -> Option<String> {
    let text =
        std::fs::read_to_string(peers_folder().ok()?.join("node_modules").join(name).join("package.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_str(&text).context("a manifest").ok()?;
    Some(format!("{name} {}", manifest["version"].as_str()?))
}
