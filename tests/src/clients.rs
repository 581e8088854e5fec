//! Clients of other protocols that others made. Scripts in `tests/clients` run them.
//!
//! `BIGUP_NODE_MODULES` names the folder of modules for node, with those of `tests/clients/tus/package.json`. `BIGUP_PYTHON`
//! names a Python that has the packages of `tests/clients/requirements.txt`; without it that is `python3`.

use crate::docs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of modules for node.
///
/// # Panics
/// It is not known or lacks one; says how to get it.
pub fn node_modules() -> PathBuf {
    let folder = std::env::var_os("BIGUP_NODE_MODULES").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.join("tus-js-client").exists() && folder.join("axe-core").exists());
    folder.expect(
        "BIGUP_NODE_MODULES does not name the modules for node: copy tests/clients/tus/package*.json to a folder, run \
         `npm ci` there, and name its node_modules. tests/run does that",
    )
}

/// node, about to run a script of `tests/clients`.
///
/// # Panics
/// Its modules are missing.
pub fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.env("BIGUP_NODE_MODULES", node_modules());
    without_proxies(command, script)
}

/// Python, about to run a script of `tests/clients`.
///
/// # Panics
/// `module` is missing, which the script needs; says how to get it.
pub fn python(script: &str, module: &str) -> Command {
    let python = std::env::var("BIGUP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    assert!(
        is_there,
        "{python} has no {module}: run `{python} -m pip install -r tests/clients/requirements.txt`, in a virtual \
         environment that BIGUP_PYTHON may name"
    );
    without_proxies(Command::new(python), script)
}

/// rclone with the http remote of `url`. It has no configuration.
pub fn rclone(url: &str) -> Command {
    let mut command = Command::new("rclone");
    command.args(["--config", "", "--http-url", url]);
    ours(command)
}

fn without_proxies(mut command: Command, script: &str) -> Command {
    command.arg(docs::root().join("tests/clients").join(script));
    ours(command)
}

fn ours(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command
}
