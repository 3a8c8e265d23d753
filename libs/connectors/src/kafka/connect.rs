//! Waiting for a cluster and its topics, for a bounded time, and saying what for.

use std::time::{Duration, Instant};

use engine::{RunError, Waiting};

use super::native::{Client, Code};

/// A single question may take so long; then it is asked again.
const ASK: Duration = Duration::from_secs(2);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// What is being opened, for messages.
pub struct Opening<'a> {
    pub table: &'a str,
    pub servers: &'a str,
    pub patience: Duration,
    pub waiting: Option<&'a Waiting>,
    /// Nobody waits any more.
    pub given_up: &'a dyn Fn() -> bool,
}

impl Opening<'_> {
    /// Asks until there is an answer or the patience is over. `what` is waited for.
    ///
    /// # Errors
    /// Wrong credentials and addresses that are not allowed at once, everything else when the time is over.
    pub fn ask<T>(
        &self,
        client: &Client,
        what: &str,
        mut question: impl FnMut(Duration) -> Result<T, Code>,
    ) -> Result<T, RunError> {
        let deadline = Instant::now() + self.patience;
        let mut told = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let code = match question(left.min(ASK).max(PAUSE)) {
                Ok(answer) => {
                    if let (Some(waiting), true) = (self.waiting, told.is_some()) {
                        waiting.over();
                    }
                    return Ok(answer);
                }
                Err(code) => code,
            };
            if let Some(error) = self.hopeless(client, what, code) {
                return Err(error);
            }
            let reason = reason(client, code);
            if left.is_zero() || (self.given_up)() {
                return Err(self.failed(what, code, &reason));
            }
            let waiting = format!("{what} at {} ({reason})", self.servers);
            if told.as_ref() != Some(&waiting) {
                tracing::info!("table {} waits for {waiting}", self.table);
                if let Some(said) = self.waiting {
                    said.on(waiting.as_str());
                }
                told = Some(waiting);
            }
            std::thread::sleep(PAUSE.min(left));
        }
    }

    /// What no waiting mends.
    fn hopeless(&self, client: &Client, what: &str, code: Code) -> Option<RunError> {
        let (table, servers) = (self.table, self.servers);
        let context = client.context();
        if let Some(address) = context.refused() {
            return Some(not_allowed(&format!("cannot open {what} of table {table}"), &address));
        }
        if let Some(reason) = context.credentials() {
            return Some(denied(&format!("cannot open {what} of table {table} at {servers}"), &reason));
        }
        if matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) {
            let message = format!("cannot open {what} of table {table} at {servers}: {}", said(code));
            return Some(RunError::user("authorization_failed", message).hint("the user needs an ACL for the topic"));
        }
        None
    }

    fn failed(&self, what: &str, code: Code, reason: &str) -> RunError {
        let (table, servers, waited) = (self.table, self.servers, self.patience.as_secs_f64());
        if is_missing(code) {
            let message = format!("table {table}: {what} does not exist at {servers} (waited {waited} s)");
            return RunError::user("topic_not_found", message)
                .hint("create the topic, or correct 'topic'; 'startup.timeout' says how long to wait for it");
        }
        let message = format!("table {table}: cannot reach {what} at {servers} (waited {waited} s): {reason}");
        RunError::external("kafka_unreachable", message)
            .hint("check bootstrap.servers, and that the broker's advertised addresses can be reached from here")
    }
}

/// A broker names an address that must not be connected to; `what` did not succeed.
pub fn not_allowed(what: &str, address: &str) -> RunError {
    let hint = "the address is one that the brokers of bootstrap.servers name; ask the operator to allow it";
    RunError::user("endpoint_not_allowed", format!("{what}: connecting to {address} is not allowed here")).hint(hint)
}

/// A broker does not believe us, or we do not believe it; `what` did not succeed.
pub fn denied(what: &str, reason: &str) -> RunError {
    let hint = "check security.protocol, sasl.mechanism, sasl.username and sasl.password, and for TLS ssl.ca.pem";
    RunError::user("authentication_failed", format!("{what}: {reason}")).hint(hint)
}

/// The topic or the partition is not there.
pub fn is_missing(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId)
}

/// Nobody has answered.
pub fn is_silence(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::TimedOutQueue
    )
}

/// librdkafka's reason for what is not answered.
pub fn reason(client: &Client, code: Code) -> String {
    match client.context().reason().filter(|_| is_silence(code)) {
        Some(reason) => reason,
        None if is_missing(code) => "it does not exist".to_string(),
        None => said(code),
    }
}

/// An error code in words.
pub fn said(code: Code) -> String {
    code.to_string()
}
