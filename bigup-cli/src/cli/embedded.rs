//! A daemon of our own for one push. It ends with its standard input: when we close it, and when we are killed.

use crate::client::token::Token;
use anyhow::{Context, bail};
use bigup_core::protocol::name::FileName;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Name of the daemon's program.
const PROGRAM: &str = "bigupd";

/// The begin of the daemon's first line, before its URL.
const GREETING: &str = "bigupd listening on ";

/// Environment variable by which the daemon gets to know the token of the process that started it for its own use.
const OWNER_TOKEN: &str = "BIGUP_OWNER_TOKEN";

/// A running daemon.
pub struct Daemon {
    child: Child,
    url: String,
    token: Token,
    data_dir: PathBuf,
    /// Kept open: a daemon that writes another line must not die of it.
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// Starts a daemon on the data folder `data_dir`, which is made where it is not there.
    ///
    /// # Errors
    /// The program is not found, or does not start.
    pub fn start(data_dir: &Path) -> anyhow::Result<Daemon> {
        if cfg!(not(target_os = "linux")) {
            bail!("--embedded works on Linux only, where the server runs: push to a server there by --url");
        }
        std::fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
        let program = program();
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(data_dir).args(["--listen", "127.0.0.1:0", "--until-stdin-closes"]);
        // Its only client is this program.
        command.args(["--max-connections", "1024"]);
        let token = Token::random()?;
        command.env(OWNER_TOKEN, token.secret());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if std::env::var_os("BIGUP_LOG").is_none() {
            command.env("BIGUP_LOG", "warn");
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().expect("its standard output is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).context("cannot read what the daemon says")?;
        match line.trim_end().strip_prefix(GREETING) {
            Some(url) => {
                let (url, data_dir) = (url.to_owned(), data_dir.to_owned());
                Ok(Daemon { child, url, token, data_dir, _stdout: stdout })
            }
            None => bail!("{} did not start: {}", program.display(), last_words(child, &line)),
        }
    }

    /// The address at which it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A token by which it lets us do everything, also on a data folder with tokens. It ends with the daemon.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The path of the finished file `name`.
    pub fn place_of(&self, name: &FileName) -> PathBuf {
        self.data_dir.join("files").join(name.as_str())
    }

    /// Ends the daemon and waits for it.
    ///
    /// # Errors
    /// It says that something went wrong.
    pub fn stop(mut self) -> anyhow::Result<()> {
        // wait() closes the standard input first.
        let status = self.child.wait().context("cannot wait for the daemon")?;
        if !status.success() {
            bail!("the daemon ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After stop() there is nothing left to do; else this is an error's way out, which has its own message.
        let _ = self.child.wait();
    }
}

/// The daemon beside this program, else the one that the PATH leads to.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

/// The last words of a daemon that did not start as it should.
fn last_words(mut child: Child, line: &str) -> String {
    let said = bigup_core::protocol::name::printable(line.trim_end());
    match child.wait() {
        Ok(status) if said.is_empty() => format!("it ended with {status}"),
        Ok(status) => format!("it said {said:?} and ended with {status}"),
        Err(error) => format!("it said {said:?}, and cannot be waited for: {error}"),
    }
}
