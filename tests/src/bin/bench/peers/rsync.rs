//! rsync and its daemon, as it is and with `--fsync`.

use super::{Peer, Started, made, program, versions};
use crate::server::{Server, free_port};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

pub(super) fn start(folder: &Path) -> anyhow::Result<Started> {
    let rsync = program("rsync")?;
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let user = if nix::unistd::geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
    let settings = folder.join("rsyncd.conf");
    let text = format!("use chroot = no\n{user}[bench]\npath = {}\nread only = no\n", stored.display());
    std::fs::write(&settings, text)?;
    let mut command = Command::new(&rsync);
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")]);
    command.arg("--config").arg(&settings).arg(format!("--log-file={}", folder.join("server.log").display()));
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let peers = [("rsync", &[][..]), ("rsync --fsync", &["--fsync"][..])].map(|(name, options)| {
        let (one, many) = (rsync.clone(), rsync.clone());
        let send = move |file: &Path, name: &str| {
            let mut command = Command::new(&one);
            command.args(options).arg(file).arg(format!("rsync://127.0.0.1:{port}/bench/{name}"));
            command
        };
        let send_folder = move |folder: &Path, name: &str| {
            let mut command = Command::new(&many);
            command.arg("-a").args(options).arg(folder.join("")).arg(format!("rsync://127.0.0.1:{port}/bench/{name}/"));
            command
        };
        Peer::new(name, stored.clone(), Some(server.clone()), Box::new(send)).with_folders(Box::new(send_folder))
    });
    Ok((versions(&[(&rsync, "--version")]), peers.into()))
}
