//! Making a client.

use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::rates::Rates;
use crate::client::tls::Certificates;
use crate::client::token::Token;
use std::path::PathBuf;

/// The settings of a [`Client`]. [`Client::builder`] makes one.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    url: String,
    token: Option<Token>,
    rates: Option<Rates>,
    certificates: Certificates,
}

impl Client {
    /// The settings of a client of the server at `url`, like `https://files.example.org`. The URL can end in `/` or in
    /// the path of the endpoint. [`ClientBuilder::build`] checks it.
    pub fn builder(url: &str) -> ClientBuilder {
        let certificates = Certificates::default();
        ClientBuilder { url: url.to_owned(), token: None, rates: None, certificates }
    }
}

impl ClientBuilder {
    /// Sends a token with every request. `None`: no token, which is the default.
    #[must_use]
    pub fn token(mut self, token: impl Into<Option<Token>>) -> ClientBuilder {
        self.token = token.into();
        self
    }

    /// Limits the bytes of content a second, over all connections together. At least
    /// [`MIN_RATE`](crate::client::rates::MIN_RATE) counts. `None`: no limit, which is the default.
    #[must_use]
    pub fn rate_limit(self, bytes_per_second: impl Into<Option<u64>>) -> ClientBuilder {
        self.rates(bytes_per_second.into().map(Rates::from))
    }

    /// The same, by the time of day.
    #[must_use]
    pub fn rates(mut self, rates: impl Into<Option<Rates>>) -> ClientBuilder {
        self.rates = rates.into();
        self
    }

    /// Trusts the certificate authorities in this file in PEM, in place of those of the system.
    #[must_use]
    pub fn ca_cert(mut self, path: impl Into<PathBuf>) -> ClientBuilder {
        self.certificates.ca_cert = Some(path.into());
        self
    }

    /// Shows this certificate to a server that asks for one. Both files are in PEM.
    #[must_use]
    pub fn client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ClientBuilder {
        (self.certificates.client_cert, self.certificates.client_key) = (Some(cert.into()), Some(key.into()));
        self
    }

    /// Sets all certificates at once.
    #[must_use]
    pub fn certificates(mut self, certificates: Certificates) -> ClientBuilder {
        self.certificates = certificates;
        self
    }

    /// Makes the client. It connects with the first request.
    ///
    /// # Errors
    /// The URL, a certificate, or the proxy that the environment names cannot be used.
    pub fn build(self) -> Result<Client, ClientError> {
        let client = Client::new(&self.url, &self.certificates)?;
        Ok(client.with_token(self.token.as_ref()).with_limit(self.rates))
    }
}
