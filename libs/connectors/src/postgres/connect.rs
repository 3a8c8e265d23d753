//! Connections to a database, only where they may lead: looked at on the resolved address, at each connection.
//!
//! The client resolves names itself. So it is given a socket of this process instead, behind which the connection lies that was looked at; the
//! name stays what its certificate is compared with.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use engine::RunError;
use graph::PostgresOptions;
use graph::postgres::SslMode;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::net::{TcpStream, UnixListener};

use super::ANSWER;
use crate::Egress;
use crate::kafka::Surroundings;

/// For one address to answer.
const DIAL: Duration = Duration::from_secs(5);
/// The name of a socket's file ends with it; there is one per folder.
const SOCKET_PORT: u16 = 5432;

/// A database, and as whom it is used.
#[derive(Clone)]
pub struct Server {
    /// What is opened, for messages: `table t`.
    what: String,
    pub host: String,
    pub port: u16,
    options: PgConnectOptions,
    egress: Egress,
}

impl Server {
    /// # Errors
    /// An unknown connection; something is missing that neither the table nor its connection says; an address that is not allowed.
    pub fn of(table: &str, options: &PostgresOptions, around: &Surroundings) -> Result<Server, RunError> {
        let what = format!("table {table}");
        let connection = match &options.connection {
            Some(name) => Some(around.connections.get(name).ok_or_else(|| {
                let message = format!("cannot open {what}: there is no connection '{name}'");
                RunError::user("unknown_connection", message)
                    .hint("create the connection first, or write its options into the table")
            })?),
            None => None,
        };
        let given = |option: &str| connection.and_then(|connection| connection.get(option)).cloned();
        let wrong = |message: String| RunError::user("invalid_option", format!("cannot open {what}: {message}"));
        let needed = |own: &Option<String>, option: &str| {
            own.clone()
                .or_else(|| given(option))
                .filter(|value| !value.trim().is_empty())
                .ok_or_else(|| wrong(format!("neither the table nor its connection says '{option}'")))
        };
        let port = match (options.port, given("port")) {
            (Some(port), _) => port.to_string(),
            (None, port) => port.unwrap_or_else(|| PostgresOptions::PORT.to_string()),
        };
        let port = port.trim().parse().map_err(|_| wrong(format!("the port is {port:?}")))?;
        let ssl_mode = match (options.ssl_mode, given("ssl.mode")) {
            (Some(mode), _) => mode,
            (None, Some(mode)) => serde_json::from_value(mode.trim().to_lowercase().into()).map_err(|_| {
                wrong(format!("ssl.mode is {mode:?}; there is disable, prefer, require, verify-ca, verify-full"))
            })?,
            (None, None) => SslMode::default(),
        };
        let host = needed(&options.host, "host")?.trim().trim_matches(['[', ']']).to_string();
        // A name that begins with a slash would be a local socket.
        if host.starts_with(['/', '@']) {
            return Err(wrong(format!("the host is {host:?}, and only names and addresses are connected to")));
        }
        if around.restricted && ["PGSSLCERT", "PGSSLKEY"].iter().any(|name| std::env::var_os(name).is_some()) {
            return Err(wrong(
                "PGSSLCERT or PGSSLKEY stands in the server's environment, and is not for everybody's jobs".into(),
            ));
        }
        let mut made = PgConnectOptions::new_without_pgpass()
            .host(&host)
            .port(port)
            .username(needed(&options.user, "user")?.trim())
            .database(needed(&options.database, "database")?.trim())
            .ssl_mode(match ssl_mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            })
            .disable_statement_logging();
        match options.password.as_ref().map(|password| password.0.clone()).or_else(|| given("password")) {
            Some(password) => made = made.password(&password),
            // Not what the server's own environment has.
            None if around.restricted => made = made.password(""),
            None => {}
        }
        if let Some(ca) = options.ssl_ca.clone().or_else(|| given("ssl.ca.pem")) {
            made = made.ssl_root_cert_from_pem(ca.into_bytes());
        }
        crate::files::allowed(&what, &host, port, &around.egress)?;
        Ok(Server { what, host, port, options: made, egress: around.egress.clone() })
    }

    /// `name` is what the server calls the session.
    ///
    /// # Errors
    /// `endpoint_not_allowed`, `postgres_unreachable`, `authentication_failed`, `database_not_found` and the like.
    pub async fn connect(&self, name: &str) -> Result<PgConnection, RunError> {
        let stream = self.dial().await?;
        let local = |error: std::io::Error| {
            let message =
                format!("cannot open {}: no socket can be made in the temporary directory: {error}", self.what);
            RunError::external("spool_failed", message).hint("set TMPDIR to another directory, with a short path")
        };
        let folder = Folder::new().map_err(local)?;
        let options = self.options.clone().socket(&folder.0).port(SOCKET_PORT).application_name(name);
        let listener = UnixListener::bind(folder.0.join(format!(".s.PGSQL.{SOCKET_PORT}"))).map_err(local)?;
        tokio::spawn(relay(listener, stream));
        let connecting = PgConnection::connect_with(&options);
        match tokio::time::timeout(ANSWER, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.failed("connect", error)),
            Err(_) => Err(self.unreachable(&format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    /// A connection to an address that is allowed.
    async fn dial(&self) -> Result<TcpStream, RunError> {
        let Server { what, host, port, egress, .. } = self;
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        let all: Vec<SocketAddr> = found.map_err(|error| self.unreachable(&error.to_string()))?.collect();
        let allowed: Vec<&SocketAddr> = all.iter().filter(|address| egress.allows(host, *port, address.ip())).collect();
        if allowed.is_empty() && !all.is_empty() {
            return Err(crate::files::refused(what, host, *port));
        }
        let mut why = "it has no address".to_string();
        for address in allowed {
            match tokio::time::timeout(DIAL, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small statements are answered at once.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection stays slow");
                    }
                    return Ok(stream);
                }
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = format!("no answer within {} s", DIAL.as_secs()),
            }
        }
        Err(self.unreachable(&why))
    }

    fn unreachable(&self, why: &str) -> RunError {
        let Server { what, host, port, .. } = self;
        RunError::external("postgres_unreachable", format!("{what}: cannot reach PostgreSQL at {host}:{port}: {why}"))
            .hint("check host and port, and that the server listens on an address that can be reached from here")
    }

    /// The answer to a statement, for which there is some patience.
    ///
    /// # Errors
    /// See [`failed`](Self::failed).
    pub async fn answer<T>(
        &self,
        doing: &str,
        limit: Duration,
        asking: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, RunError> {
        match tokio::time::timeout(limit, asking).await {
            Ok(answer) => answer.map_err(|error| self.failed(doing, error)),
            Err(_) => {
                let message = format!("{}: cannot {doing}: no answer within {} s", self.what, limit.as_secs());
                Err(RunError::external("postgres_failed", message))
            }
        }
    }

    /// What an error means for a run. What another try may mend is external.
    pub fn failed(&self, doing: &str, error: sqlx::Error) -> RunError {
        let Server { what, host, port, .. } = self;
        let database = match &error {
            sqlx::Error::Database(database) => database.try_downcast_ref::<PgDatabaseError>(),
            _ => None,
        };
        let Some(database) = database else {
            return match &error {
                sqlx::Error::Tls(reason) => {
                    let message = format!("{what}: cannot {doing} at {host}:{port} by TLS: {reason}");
                    RunError::user("tls_failed", message).hint("check 'ssl.mode' and 'ssl.ca.pem'")
                }
                sqlx::Error::Io(reason) => self.unreachable(&format!("cannot {doing}: {reason}")),
                other => RunError::external("postgres_failed", format!("{what}: cannot {doing}: {other}")),
            };
        };
        let said = [Some(database.message()), database.detail(), database.r#where()];
        let said = said.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let said: String = said.chars().take(1000).collect();
        let message = format!("{what}: cannot {doing} at {host}:{port}: {said} (SQLSTATE {})", database.code());
        match database.code() {
            "28000" | "28P01" => RunError::user("authentication_failed", message).hint("check user and password"),
            "3D000" => RunError::user("database_not_found", message).hint("create the database, or correct 'database'"),
            "3F000" => RunError::user("sink_table_not_found", message).hint("create the schema, or correct 'schema'"),
            "42P01" => RunError::user("sink_table_not_found", message).hint("create the table, or write 'create' = 'true'"),
            "42501" => RunError::user("authorization_failed", message).hint(super::target::RIGHTS),
            "25006" => RunError::user("authorization_failed", message)
                .hint("the server, or the user's sessions, only read: name the primary server, or set default_transaction_read_only off"),
            // A value, a constraint or a trigger does not take a row: no other try will.
            code if ["21", "22", "23", "42", "44", "P0"].iter().any(|class| code.starts_with(class)) => {
                RunError::user("row_refused", message)
                    .hint("correct the query or the table: nothing of the epoch was written")
            }
            "0A000" => RunError::user("row_refused", message).hint("the table does not take rows in this way"),
            _ => RunError::external("postgres_failed", message),
        }
    }
}

/// A folder that only this user may look into; gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt;
        // Short: the path of a socket has 107 bytes at most.
        let name = format!("hw-{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a folder for a socket stays");
        }
    }
}

/// Takes the one client, and goes with it.
async fn relay(listener: UnixListener, mut far: TcpStream) {
    let Ok(Ok((mut near, _))) = tokio::time::timeout(ANSWER, listener.accept()).await else { return };
    drop(listener);
    // How it ends, both sides see for themselves.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 1 << 16, 1 << 16).await;
}
