//! The options of tables in PostgreSQL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::connector::{Secret, boolean, optional_number};
use crate::kafka::DeliveryGuarantee;

/// How a connection is encrypted, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    Disable,
    /// Encrypted where the server can; nobody is verified.
    #[default]
    Prefer,
    /// Encrypted; nobody is verified.
    Require,
    /// The server's certificate leads to a trusted one.
    VerifyCa,
    /// And it is for this host.
    VerifyFull,
}

/// A table of a PostgreSQL database. With a primary key rows are upserts and deletions by key, without one they are appended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PostgresOptions {
    /// A connection of the server: it says where the database is and as whom. Then `host`, `port`, `user`, `password` and `ssl.*` stand there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// A name or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Default: 5432.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_number")]
    pub port: Option<u64>,
    /// Default: that of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Default: `prefer`.
    #[serde(rename = "ssl.mode", default, skip_serializing_if = "Option::is_none")]
    pub ssl_mode: Option<SslMode>,
    /// Certificates that are trusted, as PEM. Default: those of the operating system.
    #[serde(rename = "ssl.ca.pem", default, skip_serializing_if = "Option::is_none")]
    pub ssl_ca: Option<String>,
    /// Default: `public`.
    #[serde(default = "public")]
    pub schema: String,
    /// The table's name in its schema, as it is: no folding to lower case.
    pub table: String,
    /// Whether the table is made where it is missing. Default: false.
    #[serde(default, deserialize_with = "boolean")]
    pub create: bool,
    /// Default: `exactly_once` in runs that keep checkpoints, else `at_least_once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryGuarantee>,
}

fn public() -> String {
    "public".to_string()
}

/// Bytes of a name in PostgreSQL; what is beyond would be cut off silently.
const NAME_BYTES_MAX: usize = 63;

impl PostgresOptions {
    /// The port that servers listen on where nothing else is said.
    pub const PORT: u16 = 5432;

    /// Values that can be read, and make no sense.
    pub(crate) fn out_of_range(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |code: &str, option: &str, message: String, hint: &str| {
            problems.push(Problem::new(code, message).hint(hint).pointer(format!("{at}/{option}")));
        };
        for (option, name) in [("schema", &self.schema), ("table", &self.table)] {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
                let message = format!("{option} is {name:?}, which is no name");
                wrong("invalid_option", option, message, "a name has 1 to 63 bytes");
            }
        }
        if self.port.is_some_and(|port| !(1..=65535).contains(&port)) {
            wrong("invalid_option", "port", "port is none of 1 to 65535".into(), "5432 is the usual one");
        }
        if self.connection.is_some() {
            // Otherwise whoever may use a connection could have its secrets sent to a server of his own.
            for (option, given) in [
                ("host", self.host.is_some()),
                ("port", self.port.is_some()),
                ("user", self.user.is_some()),
                ("password", self.password.is_some()),
                ("ssl.mode", self.ssl_mode.is_some()),
                ("ssl.ca.pem", self.ssl_ca.is_some()),
            ] {
                if given {
                    let message =
                        format!("'{option}' stands beside 'connection', which says where to connect to and as whom");
                    wrong("option_not_allowed", option, message, "leave it out, or the connection");
                }
            }
            return problems;
        }
        for (option, given) in
            [("host", self.host.is_some()), ("database", self.database.is_some()), ("user", self.user.is_some())]
        {
            if !given {
                let message = format!("neither '{option}' nor 'connection' is given");
                wrong("missing_option", option, message, &format!("add '{option}' = '...'"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SinkConnector;
    use serde_json::{Value, json};

    fn read(more: Value) -> Result<SinkConnector, String> {
        let mut options = json!({"type": "postgres", "table": "t"});
        options.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        SinkConnector::from_options(options.as_object().expect("an object"), "")
            .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_table_says_where_it_is_or_names_a_connection() {
        let own = json!({"host": "h", "database": "d", "user": "u", "password": "hunter2", "port": "5433", "create": "TRUE",
            "delivery": "exactly-once", "ssl.mode": "verify-full"});
        let Ok(SinkConnector::Postgres(options)) = read(own) else { panic!("it is refused") };
        assert_eq!((options.port, options.create, options.schema.as_str()), (Some(5433), true, "public"));
        assert_eq!(
            (options.delivery, options.ssl_mode),
            (Some(DeliveryGuarantee::ExactlyOnce), Some(SslMode::VerifyFull))
        );
        assert!(!format!("{options:?}").contains("hunter2"));
        let again = serde_json::to_value(SinkConnector::Postgres(options.clone())).and_then(serde_json::from_value);
        assert!(matches!(again, Ok(SinkConnector::Postgres(again)) if again == options));
        assert!(read(json!({"connection": "c", "database": "d"})).is_ok());
        for (more, expected) in [
            (json!({}), "/host: neither 'host' nor 'connection'"),
            (json!({"host": "h", "user": "u"}), "/database: neither"),
            (json!({"connection": "c", "host": "evil"}), "/host: 'host' stands beside 'connection'"),
            (json!({"connection": "c", "ssl.mode": "disable"}), "'ssl.mode' stands beside 'connection'"),
            (json!({"connection": "c", "table": ""}), "table is \"\", which is no name"),
            (json!({"connection": "c", "schema": "s".repeat(64)}), "which is no name"),
            (json!({"connection": "c", "port": 0}), "port is none of"),
            (json!({"connection": "c", "tabel": "x"}), "did you mean table?"),
            (json!({"connection": "c", "ssl.mode": "on"}), "none of the names that can stand here"),
        ] {
            let wrong = read(more.clone()).expect_err(expected);
            assert!(wrong.contains(expected), "{more}: {wrong}");
        }
    }
}
