//! The options of records in Avro with a schema registry, in Flink's names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Problem, Secret};

/// The schema registry (Confluent's routes) of a table whose format is `avro-confluent`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AvroConfluentOptions {
    /// Where the registry is: `http://host:8081`, with a path if it has one. Required.
    #[serde(rename = "avro-confluent.url", default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A connection of the service to a registry, whose options are used. Default: the table's connection.
    #[serde(rename = "avro-confluent.connection", default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Under which name a sink registers the schema of its values. Default: the topic and `-value`.
    #[serde(rename = "avro-confluent.subject", default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The same for its keys. Default: the topic and `-key`.
    #[serde(rename = "key.avro-confluent.subject", default, skip_serializing_if = "Option::is_none")]
    pub key_subject: Option<String>,
    /// `user:password` for the registry.
    #[serde(rename = "avro-confluent.basic-auth.user-info", default, skip_serializing_if = "Option::is_none")]
    pub user_info: Option<Secret>,
    /// A token for the registry, instead of user and password.
    #[serde(rename = "avro-confluent.bearer-auth.token", default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl AvroConfluentOptions {
    /// Takes from a connection's options what the table does not say itself. Credentials only together with the URL: a table that names
    /// another registry does not send them there.
    pub fn filled_from(mut self, connection: &BTreeMap<String, String>) -> AvroConfluentOptions {
        let get = |name: &str| connection.get(name).cloned();
        let url = get("avro-confluent.url");
        if self.url.is_none() || self.url == url {
            self.url = url;
            if self.user_info.is_none() && self.token.is_none() {
                self.user_info = get("avro-confluent.basic-auth.user-info").map(Secret);
                self.token = get("avro-confluent.bearer-auth.token").map(Secret);
            }
        }
        self
    }

    /// What must not be shown.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut Secret> {
        self.user_info.iter_mut().chain(&mut self.token)
    }

    /// What can be told to be wrong without asking the registry, with pointers below `at`; for options that are complete.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |option: &str, message: &str, hint: &str| {
            let problem = Problem::new("invalid_option", message).hint(hint);
            problems.push(problem.pointer(format!("{at}/{option}")));
        };
        match self.url.as_deref() {
            None => wrong(
                "avro-confluent.url",
                "the format avro-confluent needs the URL of its schema registry",
                "write 'avro-confluent.url' = 'http://host:8081'",
            ),
            Some(url) => {
                let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
                match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
                    None | Some("") => {
                        wrong("avro-confluent.url", "the URL of the schema registry is none", "write http://host:8081");
                    }
                    Some(host) if host.contains('@') => wrong(
                        "avro-confluent.url",
                        "the URL of the schema registry holds credentials, which would be shown",
                        "give them as 'avro-confluent.basic-auth.user-info'",
                    ),
                    Some(_) => {}
                }
            }
        }
        if self.user_info.as_ref().is_some_and(|secret| !secret.0.contains(':')) {
            wrong("avro-confluent.basic-auth.user-info", "there is no colon in it", "write user:password");
        }
        if self.user_info.is_some() && self.token.is_some() {
            wrong("avro-confluent.bearer-auth.token", "there are a user and a token", "give one of them");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_fills_in_what_the_table_does_not_say() {
        let connection: BTreeMap<String, String> = [
            ("avro-confluent.url", "http://mine:1"),
            ("avro-confluent.basic-auth.user-info", "u:hunter2"),
            ("properties.bootstrap.servers", "b:1"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
        let filled = AvroConfluentOptions::default().filled_from(&connection);
        assert_eq!(filled.url.as_deref(), Some("http://mine:1"));
        assert_eq!(filled.user_info, Some(Secret("u:hunter2".into())));
        assert!(!format!("{filled:?}").contains("hunter2"));
        let other = AvroConfluentOptions { url: Some("http://theirs:1".into()), ..AvroConfluentOptions::default() };
        assert_eq!(other.clone().filled_from(&connection), other, "credentials go to no other registry");
    }

    #[test]
    fn problems_are_told_with_what_to_write() {
        let options = |url: Option<&str>, user: Option<&str>, token: Option<&str>| AvroConfluentOptions {
            url: url.map(String::from),
            user_info: user.map(|user| Secret(user.into())),
            token: token.map(|token| Secret(token.into())),
            ..AvroConfluentOptions::default()
        };
        for (options, count) in [
            (options(Some("http://h:1/path"), Some("u:p"), None), 0),
            (options(Some("https://h"), None, Some("t")), 0),
            (options(None, None, None), 1),
            (options(Some("h:1"), None, None), 1),
            (options(Some("http://"), None, None), 1),
            (options(Some("http://u:p@h:1"), None, None), 1),
            (options(Some("http://h:1"), Some("u"), Some("t")), 2),
        ] {
            assert_eq!(options.problems("").len(), count, "{options:?}");
        }
    }
}
