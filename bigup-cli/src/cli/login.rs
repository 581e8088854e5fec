//! The command `login`: stores the address of a server and a token for it.

use crate::cli::advice;
use crate::cli::args::LoginArgs;
use crate::cli::config::file::{folder, with_keys};
use crate::cli::config::secret;
use crate::cli::print::{eprint_line, print_line};
use crate::client::Client;
use crate::client::token::Token;
use anyhow::Context;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// Asks for a token, tries it, and stores both.
///
/// # Errors
/// The server does not take the token, or the files cannot be written. Nothing is stored then.
pub fn run(args: &LoginArgs) -> anyhow::Result<()> {
    let folder = folder()?;
    let certificates = args.certificates.certificates();
    let builder = Client::builder(&args.url).certificates(certificates);
    // An address that cannot be used is better told before the token is asked for.
    builder.clone().build().map_err(advice::failed_client)?;
    let token = Token::new(&asked_for(&args.url)?)?;
    let client = builder.token(token.clone()).build().map_err(advice::failed_client)?;
    let rights = client.rights().map_err(advice::failed_call)?;
    secret::make_folder(&folder)?;
    let token_file = format!("{}.token", args.server.as_deref().unwrap_or("default"));
    secret::write(&folder.join(&token_file), &format!("{}\n", token.secret()))?;
    let path = folder.join("config.ini");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| path.display().to_string())?,
    };
    let mut keys = vec![("url", args.url.clone()), ("token_file", token_file)];
    let files = &args.certificates;
    for (key, file) in
        [("ca_cert", &files.ca_cert), ("client_cert", &files.client_cert), ("client_key", &files.client_key)]
    {
        if let Some(file) = file {
            keys.push((key, absolute(file)?.display().to_string()));
        }
    }
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
    secret::write(&path, &with_keys(&text, args.server.as_deref(), &keys))?;
    let rights = match rights.prefix.as_str() {
        "" => rights.permissions.join(","),
        prefix => format!("{} under {prefix}", rights.permissions.join(",")),
    };
    print_line(&format!("{}: {rights}; stored in {}", args.url, path.display()));
    Ok(())
}

/// The token: typed at a terminal without being shown, or the line of a pipe.
fn asked_for(url: &str) -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        eprint_line(&format!("Token for {url} (it is not shown):"));
        return rpassword::read_password().context("cannot read the token");
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot read the token")?;
    Ok(line)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}
