//! HTTP clients that connect only where they may: looked at on the resolved address, at each connection. Nobody is redirected: elsewhere is
//! where nobody allowed us to go, and credentials would go along.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

use crate::Egress;

/// Whether a connection to an address that a host was resolved to is allowed at a port.
pub type Allows = Arc<dyn Fn(&str, u16, IpAddr) -> bool + Send + Sync>;

pub fn allowed_by(egress: &Egress) -> Allows {
    let egress = egress.clone();
    Arc::new(move |host, port, ip| egress.allows(host, port, ip))
}

/// A client for one port. A host that is an address is not resolved: ask [`is_refused_literal`] before a request.
pub fn client(allows: Allows, port: u16) -> reqwest::ClientBuilder {
    reqwest::Client::builder().redirect(Policy::none()).dns_resolver(Arc::new(Allowed { allows, port }))
}

/// Whether a host is an address that must not be connected to.
pub fn is_refused_literal(allows: &Allows, host: &str, port: u16) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok_and(|ip| !allows(bare, port, ip))
}

/// Whether a request has failed because it was not to be made.
pub fn is_not_allowed(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<NotAllowed>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[derive(Debug, thiserror::Error)]
#[error("its address is not allowed")]
struct NotAllowed;

/// Only addresses that may be connected to.
struct Allowed {
    allows: Allows,
    port: u16,
}

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let (allows, port) = (self.allows.clone(), self.port);
        Box::pin(async move {
            let host = name.as_str();
            let all: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            let allowed: Vec<_> = all.iter().copied().filter(|at| allows(host, port, at.ip())).collect();
            if allowed.is_empty() && !all.is_empty() {
                return Err(Box::new(NotAllowed) as Box<dyn Error + Send + Sync>);
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Makes the clients of an object store.
#[derive(Clone, Debug)]
pub struct StoreConnector {
    pub egress: Egress,
    pub port: u16,
    pub connect_timeout: Duration,
    pub timeout: Duration,
}

impl HttpConnector for StoreConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut builder = client(allowed_by(&self.egress), self.port)
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout)
            .http1_only()
            // The length of an answer is that of the object.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        // Behind a proxy nobody sees the address; who may go everywhere may use the one of his environment.
        if self.egress != Egress::everywhere() {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|error| object_store::Error::Generic { store: "HTTP client", source: Box::new(error) })?;
        Ok(HttpClient::new(Checked { http, allows: Guard(allowed_by(&self.egress)), port: self.port }))
    }
}

struct Guard(Allows);

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

#[derive(Debug)]
struct Checked {
    http: reqwest::Client,
    allows: Guard,
    port: u16,
}

impl HttpService for Checked {
    // As `async_trait` would write it.
    fn call<'s, 'f>(&'s self, request: HttpRequest) -> BoxFuture<'f, Result<HttpResponse, HttpError>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            // Not one of those that are tried again.
            let refused = || HttpError::new(HttpErrorKind::Unknown, NotAllowed);
            let uri = request.uri();
            let port = uri.port_u16().unwrap_or(self.port);
            if uri.host().is_some_and(|host| is_refused_literal(&self.allows.0, host, port)) {
                return Err(refused());
            }
            let answer = self.http.call(request).await;
            answer.map_err(|error| if is_not_allowed(&error) { refused() } else { error })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A server that answers each request alike, and counts them.
    fn server(answer: String) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (port, asked)
    }

    #[test]
    fn an_object_store_is_reached_only_where_it_may_be_and_follows_nobody() {
        let (elsewhere, visited) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into());
        let to = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let (port, asked) = server(to);
        let get = |host: &str, egress: &Egress| {
            let (connect_timeout, timeout) = (Duration::from_secs(2), Duration::from_secs(5));
            let connector = StoreConnector { egress: egress.clone(), port, connect_timeout, timeout };
            let client = connector.connect(&ClientOptions::new()).unwrap();
            let uri = format!("http://{host}:{port}/");
            let mut request = HttpRequest::new(Vec::<u8>::new().into());
            *request.uri_mut() = uri.parse().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(client.execute(request)).map(|answer| answer.status().as_u16())
        };
        let mine = Egress { loopback: true, ..Egress::default() };
        for host in ["127.0.0.1", "localhost"] {
            assert_eq!(get(host, &mine).unwrap(), 302, "{host}");
            let error = get(host, &Egress::default()).unwrap_err();
            assert!(is_not_allowed(&error) && error.kind() == HttpErrorKind::Unknown, "{host}: {error:?}");
        }
        assert!(is_not_allowed(&get("169.254.169.254", &Egress::everywhere()).unwrap_err()));
        let counted = |count: &std::sync::atomic::AtomicUsize| count.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!((counted(&asked), counted(&visited)), (2, 0));
    }
}
