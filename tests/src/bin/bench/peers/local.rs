//! `cp` within the machine: what moving bytes costs without any network.

use super::{Peer, Started, made, versions};
use std::path::Path;
use std::process::Command;

pub(super) fn start(folder: &Path) -> anyhow::Result<Started> {
    let stored = made(folder, "files")?;
    let command = |arguments: &'static [&'static str], to: std::path::PathBuf| {
        move |from: &Path, name: &str| {
            let mut command = Command::new("cp");
            command.args(arguments).arg(from).arg(to.join(name));
            command
        }
    };
    let peer = Peer::new("cp", stored.clone(), None, Box::new(command(&[], stored.clone())))
        .with_folders(Box::new(command(&["-r"], stored)));
    Ok((versions(&[(Path::new("cp"), "--version")]), vec![peer]))
}
