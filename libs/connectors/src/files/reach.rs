//! How a table's files are reached: its connection merged in, its endpoint allowed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::ToSocketAddrs;

use engine::RunError;
use graph::{FilesystemOptions, Secret};

use super::store::AllowedRoots;
use crate::Egress;
use crate::egress::split_port;

/// What tables of files may touch.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Local files.
    pub roots: AllowedRoots,
    /// Object stores.
    pub egress: Egress,
}

impl Reach {
    /// As for a user's own command line.
    pub fn everywhere(roots: AllowedRoots) -> Reach {
        Reach { roots, egress: Egress::everywhere() }
    }
}

/// The options of a table with those of the connection that it names, where the table has none of its own.
///
/// In a restricted registry S3 needs credentials from a connection: those of the server's environment, and of the machine it runs on, are
/// not for everybody's jobs.
///
/// # Errors
/// The connection is unknown, credentials are missing, or the endpoint is not allowed.
pub fn reachable<'a>(
    table: &str,
    options: &'a FilesystemOptions,
    connections: &BTreeMap<String, BTreeMap<String, String>>,
    egress: &Egress,
    restricted: bool,
) -> Result<Cow<'a, FilesystemOptions>, RunError> {
    let mut options = Cow::Borrowed(options);
    if let Some(name) = options.connection.clone() {
        let Some(connection) = connections.get(&name) else {
            let message = format!("cannot open table {table}: there is no connection '{name}'");
            return Err(RunError::user("connection_not_found", message)
                .hint("connections belong to a server: POST /api/v1/connections"));
        };
        let given = |option: &str| connection.get(option).cloned();
        let files = options.to_mut();
        files.s3_endpoint = files.s3_endpoint.take().or_else(|| given("s3.endpoint"));
        files.s3_region = files.s3_region.take().or_else(|| given("s3.region"));
        files.s3_access_key = files.s3_access_key.take().or_else(|| given("s3.access-key").map(Secret));
        files.s3_secret_key = files.s3_secret_key.take().or_else(|| given("s3.secret-key").map(Secret));
    }
    let Some(rest) = options.path.strip_prefix("s3://").or_else(|| options.path.strip_prefix("s3a://")) else {
        return Ok(options);
    };
    if restricted && (options.s3_access_key.is_none() || options.s3_secret_key.is_none()) {
        let message = format!("cannot open table {table}: nothing gives credentials for {}", options.path);
        return Err(RunError::user("access_denied", message)
            .hint("name a connection that has s3.access-key and s3.secret-key: 'connection' = 'name'"));
    }
    let bucket = rest.split('/').next().unwrap_or_default();
    let (host, port) = endpoint(&options, bucket);
    allowed(&format!("table {table}"), &host, port, egress)?;
    Ok(options)
}

/// Where requests go.
pub(super) fn endpoint(options: &FilesystemOptions, bucket: &str) -> (String, u16) {
    let Some(endpoint) = &options.s3_endpoint else {
        let region = options.s3_region.as_deref().unwrap_or("us-east-1");
        return (format!("{bucket}.s3.{region}.amazonaws.com"), 443);
    };
    let (rest, default) = match endpoint.split_once("://") {
        Some(("http", rest)) => (rest, 80),
        Some((_, rest)) => (rest, 443),
        None => (endpoint.as_str(), 443),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = split_port(authority);
    (host.to_string(), port.unwrap_or(default))
}

/// Whether every address that the host has now may be connected to. A name that is not known now is no matter of this: each connection is looked
/// at again.
pub fn allowed(what: &str, host: &str, port: u16, egress: &Egress) -> Result<(), RunError> {
    let mut addresses = (host, port).to_socket_addrs().into_iter().flatten();
    if addresses.all(|address| egress.allows(host, port, address.ip())) {
        Ok(())
    } else {
        Err(refused(what, host, port))
    }
}

/// The error of an address that must not be connected to.
pub fn refused(what: &str, host: &str, port: u16) -> RunError {
    let message = format!("cannot open {what}: connecting to {host}:{port} is not allowed here");
    RunError::user("endpoint_not_allowed", message).hint("ask the operator to allow it: --allow-endpoint HOST:PORT")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(json: serde_json::Value) -> FilesystemOptions {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_connection_gives_what_the_table_lacks() {
        let table = options(
            serde_json::json!({"path": "s3://b/x", "format": "json", "connection": "store", "s3.region": "eu-west-1"}),
        );
        let known = |name: &str, value: &str| (name.to_string(), value.to_string());
        let store = BTreeMap::from([
            known("s3.endpoint", "http://127.0.0.1:9000"),
            known("s3.region", "us-east-1"),
            known("s3.access-key", "a"),
            known("s3.secret-key", "b"),
        ]);
        let connections = BTreeMap::from([("store".to_string(), store)]);
        let mine = Egress { loopback: true, ..Egress::default() };
        let merged = reachable("t", &table, &connections, &mine, true).unwrap();
        assert_eq!(merged.s3_region.as_deref(), Some("eu-west-1"));
        assert_eq!(merged.s3_secret_key, Some(Secret("b".into())));
        let code = |connections: &_, egress: &_, restricted| {
            reachable("t", &table, connections, egress, restricted).unwrap_err().code.to_string()
        };
        assert_eq!(code(&BTreeMap::new(), &mine, true), "connection_not_found");
        assert_eq!(code(&connections, &Egress::default(), true), "endpoint_not_allowed");
        let bare = BTreeMap::from([("store".to_string(), BTreeMap::new())]);
        assert_eq!(code(&bare, &mine, true), "access_denied");
        let metadata =
            options(serde_json::json!({"path": "s3://b/x", "format": "json", "s3.endpoint": "http://169.254.169.254"}));
        let error = reachable("t", &metadata, &BTreeMap::new(), &Egress::everywhere(), false).unwrap_err();
        assert_eq!(error.code, "endpoint_not_allowed", "not even for one's own command line");
        let unknown = options(
            serde_json::json!({"path": "s3://b/x", "format": "json", "s3.endpoint": "http://no-such-host.invalid"}),
        );
        assert!(reachable("t", &unknown, &BTreeMap::new(), &Egress::everywhere(), false).is_ok());
        let local = options(serde_json::json!({"path": "/tmp/x", "format": "json"}));
        assert!(reachable("t", &local, &BTreeMap::new(), &Egress::default(), true).is_ok());
    }

    #[test]
    fn the_endpoint_is_where_requests_go() {
        let of = |endpoint: Option<&str>| {
            let table = options(serde_json::json!({"path": "s3://b/x", "format": "json", "s3.endpoint": endpoint}));
            endpoint_text(&table)
        };
        fn endpoint_text(table: &FilesystemOptions) -> String {
            let (host, port) = endpoint(table, "b");
            format!("{host} {port}")
        }
        for (given, expected) in [
            (None, "b.s3.us-east-1.amazonaws.com 443"),
            (Some("http://127.0.0.1:9000"), "127.0.0.1 9000"),
            (Some("https://store.example/path"), "store.example 443"),
            (Some("http://user:pass@169.254.169.254/x"), "169.254.169.254 80"),
            (Some("http://[::1]:9000/"), "::1 9000"),
            (Some("http://[::1]"), "::1 80"),
        ] {
            assert_eq!(of(given), expected, "{given:?}");
        }
    }
}
