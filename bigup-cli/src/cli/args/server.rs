//! The options that tell the server, and how to be let in.

use crate::cli::advice;
use crate::cli::config::merge::TOKEN_VARIABLE;
use crate::client::Client;
use crate::client::address::masked;
use crate::client::builder::ClientBuilder;
use crate::client::tls::Certificates;
use crate::client::token::Token;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

/// Where the server is.
#[derive(Args, Debug)]
pub struct Server {
    /// The server; without user and password, which everybody on this machine could see
    #[arg(long, env = "BIGUP_URL", hide_env_values = true, default_value = "http://127.0.0.1:8888")]
    pub url: String,
    /// A server of the configuration file, by the name of its section; or write NAME: before a name on it
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,
    /// File with the token that the server asks for; there is no flag for the token itself, which everybody on this
    /// machine could see
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub certificates: CertificateFiles,
}

/// Certificates for a server at https://, as files in PEM.
#[derive(Args, Clone, Debug, Default)]
pub struct CertificateFiles {
    /// Authorities that the server's certificate may be of, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", env = "BIGUP_CA_CERT")]
    pub ca_cert: Option<PathBuf>,
    /// Certificate to show to a server that asks for one, in PEM
    #[arg(long, value_name = "FILE", env = "BIGUP_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key of the client certificate, in PEM
    #[arg(long, value_name = "FILE", env = "BIGUP_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

impl CertificateFiles {
    /// As the client takes them.
    pub fn certificates(&self) -> Certificates {
        let CertificateFiles { ca_cert, client_cert, client_key } = self.clone();
        Certificates { ca_cert, client_cert, client_key }
    }
}

impl Server {
    /// The server, with its token and certificates.
    ///
    /// # Errors
    /// The token cannot be used.
    pub fn builder(&self) -> anyhow::Result<ClientBuilder> {
        let builder = Client::builder(&self.url).certificates(self.certificates.certificates());
        Ok(builder.token(self.token()?))
    }

    /// The server, for a command that asks one question at a time.
    ///
    /// # Errors
    /// The URL, the token or a certificate cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.builder()?.build().map_err(advice::failed_client)
    }

    /// The token in the file, or else in the environment. `None`: there is none.
    fn token(&self) -> anyhow::Result<Option<Token>> {
        if let Some(path) = &self.token_file {
            return Ok(Some(Token::from_file(path)?));
        }
        match std::env::var_os(TOKEN_VARIABLE) {
            Some(value) if !value.is_empty() => {
                let token = value.to_str().and_then(|value| Token::new(value).ok());
                token.map(Some).with_context(|| format!("{TOKEN_VARIABLE} is no token"))
            }
            _ => Ok(None),
        }
    }
}

/// True if `text`, which is no option's value, is something else than a server.
///
/// # Errors
/// It is a server.
pub fn no_url(text: &str) -> Result<(), String> {
    let is_url = ["http://", "https://"].iter().any(|scheme| text.to_ascii_lowercase().starts_with(scheme));
    if is_url { Err(format!("{} is a server: give it by --url", masked(text))) } else { Ok(()) }
}

/// The server and the rest in `text` like `lab:runs/2026/`, where `is_known` knows the server. A single letter is a drive
/// of Windows.
pub fn split_server<'a>(text: &'a str, is_known: &dyn Fn(&str) -> bool) -> Option<(&'a str, &'a str)> {
    let (name, rest) = text.split_once(':')?;
    (name.len() > 1 && !name.contains(['/', '\\']) && is_known(name)).then_some((name, rest))
}
