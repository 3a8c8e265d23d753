//! The Rust client of the service: what REST can do, as functions with types.
//!
//! [`Client`] names a server and perhaps carries a key. Every function is one request (or one page after another), and gives the types of
//! `api`, or an [`Error`]: a [`Problem`](api::Problem) that the server has answered with, or why there was no answer. What may be repeated
//! is repeated a few times ([`Retries`]): reads, changes that name what shall be, and what creates, under one idempotency key; so nothing
//! is created twice. Rows come as the bytes that were asked for (JSON, CSV, Arrow): this crate knows neither Arrow nor a terminal.

mod access;
mod catalogue;
mod error;
mod jobs;
mod rows;
mod runs;
mod savepoints;
mod send;
mod system;

pub use error::Error;
pub use jobs::JobQuery;
pub use rows::{Body, RowForm, Rows, ViewQuery};
pub use runs::{RunQuery, is_over, name};
pub use send::Retries;

use std::fmt;
use std::time::Duration;

use reqwest::Url;

/// What a function of the client gives.
pub type Result<T> = std::result::Result<T, Error>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A server, and who asks it. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    key: Option<String>,
    retries: Retries,
}

/// Never with the key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url.as_str()).field("has_key", &self.key.is_some()).finish()
    }
}

impl Client {
    /// `url` is the server's, such as `http://127.0.0.1:8080`; `key` an API key, where the server has keys. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Url`] if `url` is none of http or https, and [`Error::Key`] if the key cannot stand in a header.
    pub fn new(url: &str, key: Option<String>) -> Result<Client> {
        let wrong = |reason: String| Error::Url { url: url.to_string(), reason };
        let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !["http", "https"].contains(&parsed.scheme()) || !parsed.has_host() {
            return Err(wrong("it begins with neither http:// nor https://".into()));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            // Not repeated in the message: it may be a secret.
            return Err(Error::Url { url: "the URL".into(), reason: "it holds a user or password; give a key".into() });
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong("it has a query or fragment".into()));
        }
        if key.as_deref().is_some_and(|key| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::Key);
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A machine that is gone says nothing; one whose query works long says nothing, too.
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if is_loopback(&parsed) {
            // What is on this machine is not reached through another.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| wrong(error::chain(&error)))?;
        Ok(Client { http, url: parsed, key, retries: Retries::default() })
    }

    /// The same with other patience.
    pub fn retries(self, retries: Retries) -> Client {
        Client { retries, ..self }
    }

    /// The server's address, as it was given.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_a_key_never_shown() {
        for wrong in ["127.0.0.1:8080", "ftp://a", "http://", "http://a?b=c", "unix:/tmp/s"] {
            assert!(matches!(Client::new(wrong, None), Err(Error::Url { .. })), "{wrong}");
        }
        let error = Client::new("http://user:canary@a", None).expect_err("a password").to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(matches!(Client::new("http://a", Some("a\nb".into())), Err(Error::Key)));
        let client = Client::new("http://127.0.0.1:8080/", Some("hw_canary".into())).expect("good");
        assert!(!format!("{client:?}").contains("canary"));
        assert_eq!(client.url(), "http://127.0.0.1:8080");
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        let loopback = |url: &str| is_loopback(&Url::parse(url).expect("a URL"));
        assert!(loopback("http://localhost:1") && loopback("http://127.3.4.5") && loopback("http://[::1]:80"));
        assert!(!loopback("http://10.0.0.1") && !loopback("https://localhost.example.org"));
    }
}
