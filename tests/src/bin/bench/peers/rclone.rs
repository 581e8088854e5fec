//! rclone to a WebDAV server of its own.

use super::{Peer, Started, made, program, versions};
use crate::server::{Server, free_port};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

pub(super) fn start(folder: &Path) -> anyhow::Result<Started> {
    let rclone = program("rclone")?;
    let (stored, port) = (made(folder, "files")?, free_port()?);
    let settings = folder.join("rclone.conf");
    let text = format!("[bench]\ntype = webdav\nurl = http://127.0.0.1:{port}\nvendor = other\n");
    std::fs::write(&settings, text)?;
    let mut command = Command::new(&rclone);
    command
        .arg("--config")
        .arg(&settings)
        .args(["serve", "webdav", "--addr", &format!("127.0.0.1:{port}")])
        .arg(&stored);
    let server = Arc::new(Server::start(&mut command, port, folder)?);
    let version = versions(&[(&rclone, "version")]);
    let send = move |verb: &'static str| {
        let (rclone, settings) = (rclone.clone(), settings.clone());
        move |from: &Path, name: &str| {
            let mut command = Command::new(&rclone);
            command.arg("--config").arg(&settings).arg(verb).arg(from).arg(format!("bench:{name}"));
            command
        }
    };
    let peer = Peer::new("rclone", stored, Some(server), Box::new(send("copyto"))).with_folders(Box::new(send("copy")));
    Ok((version, vec![peer]))
}
