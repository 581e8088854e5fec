//! scp to an sshd of our own with keys that are thrown away.

use super::{Peer, Started, made, program, versions};
use crate::server::{Server, free_port};
use anyhow::ensure;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// The fastest cipher of machines that have instructions for AES.
const CIPHER: &str = "aes128-gcm@openssh.com";

pub(super) fn start(folder: &Path) -> anyhow::Result<Started> {
    // sshd insists on being called by its whole path.
    let (sshd, ssh, scp, keygen) = (program("sshd")?, program("ssh")?, program("scp")?, program("ssh-keygen")?);
    let (stored, port) = (made(folder, "files")?, free_port()?);
    for name in ["host", "user"] {
        let made =
            Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name)).status()?;
        ensure!(made.success(), "ssh-keygen failed");
    }
    if nix::unistd::geteuid().is_root() {
        // An empty folder that it wants to shut itself in.
        std::fs::create_dir_all("/run/sshd")?;
    }
    let settings = folder.join("sshd_config");
    let at = folder.display();
    let text = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nMaxStartups 100\n\
         Subsystem sftp internal-sftp\n"
    );
    std::fs::write(&settings, text)?;
    let server = Server::start(Command::new(&sshd).arg("-D").arg("-e").arg("-f").arg(&settings), port, folder)?;
    let (key, user, to) = (folder.join("user"), user_name()?, stored.clone());
    let scp_command = move |recursive: bool| {
        let (scp, key, user, to) = (scp.clone(), key.clone(), user.clone(), to.clone());
        move |from: &Path, name: &str| {
            let mut command = Command::new(&scp);
            command.args(["-q", "-F", "none", "-c", CIPHER, "-P", &port.to_string(), "-i"]).arg(&key);
            command.args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ]);
            command.args(recursive.then_some("-r")).arg(from);
            command.arg(format!("{user}@127.0.0.1:{}", to.join(name).display()));
            command
        }
    };
    let peer = Peer::new("scp", stored, Some(Arc::new(server)), Box::new(scp_command(false)))
        .with_folders(Box::new(scp_command(true)));
    Ok((versions(&[(&ssh, "-V")]), vec![peer]))
}

fn user_name() -> anyhow::Result<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?;
    Ok(user.map_or_else(|| "root".to_owned(), |user| user.name))
}
