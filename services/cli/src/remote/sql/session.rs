//! What a sequence of statements means: tables and settings are kept, queries run with what was kept before them.

use std::time::Duration;

use api::{SqlQuery, ValidateGraph};
use client::{Client, RowForm};

use super::rows;
use super::statements::{is_kept, statements};
use crate::arguments::Output;
use crate::problems::Source;
use crate::remote::failure::Failure;
use crate::remote::working_directory;

/// Does something until it is done, or until Ctrl-C. The server ends a query that nobody reads any more.
pub async fn interruptible<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

/// A client and what it has been told so far.
pub struct Session {
    pub client: Client,
    pub output: Output,
    pub timeout: Option<Duration>,
    /// CREATE and SET statements, in their order.
    kept: String,
}

impl Session {
    pub fn new(client: Client, output: Output, timeout: Option<Duration>) -> Session {
        Session { client, output, timeout, kept: String::new() }
    }

    /// Forgets tables and settings.
    pub fn reset(&mut self) {
        self.kept.clear();
    }

    /// Runs every query of a script, each with the tables and settings before it. Lines and columns of what is wrong are the script's.
    pub async fn script(&self, source: &Source) -> Result<(), Failure> {
        let text = &source.text;
        let all = statements(text);
        if all.is_empty() {
            return Err(Failure::Wrong(format!("{} holds no statement", source.name)));
        }
        let mut sent = String::new();
        let mut at = 0;
        let mut queries = 0;
        for range in all {
            let (before, statement) = (&text[at..range.start], &text[range.clone()]);
            at = range.end;
            if is_kept(statement) {
                sent.extend([before, statement]);
                continue;
            }
            queries += 1;
            sent.push_str(before);
            self.query(format!("{sent}{statement}"), source).await?;
            sent.push_str(&blank(statement));
        }
        match queries {
            // Tables without a query: they shall be right nonetheless.
            0 => self.check(&sent, source).await,
            _ => Ok(()),
        }
    }

    /// Runs one statement of a conversation: the number of its rows, or nothing if it is kept.
    pub async fn statement(&mut self, statement: &str) -> Result<Option<u64>, Failure> {
        if !is_kept(statement) {
            return self.again(statement).await.map(Some);
        }
        let text = format!("{}{}", self.kept, statement.trim());
        self.check(&text, &Source::new("session", text.clone())).await?;
        self.kept = format!("{text}\n");
        Ok(None)
    }

    /// Runs a query with what is kept.
    pub async fn again(&self, query: &str) -> Result<u64, Failure> {
        let text = format!("{}{}", self.kept, query.trim());
        self.query(text.clone(), &Source::new("session", text)).await
    }

    async fn query(&self, sql: String, source: &Source) -> Result<u64, Failure> {
        let timeout = self.timeout.map(|timeout| format!("{}ms", timeout.as_millis()));
        let query = SqlQuery { sql, timeout, base_directory: working_directory(), ..SqlQuery::default() };
        let body = self.client.query(&query, RowForm::Arrow).await.map_err(|error| Failure::about(error, source))?;
        let (shown, _) = rows::show(body, self.output, u64::MAX).await?;
        Ok(shown)
    }

    /// Whether tables and settings are right. Views over views of the server are only checked with a query.
    async fn check(&self, sql: &str, source: &Source) -> Result<(), Failure> {
        let asked = ValidateGraph {
            sql: Some(sql.to_string()),
            base_directory: working_directory(),
            ..ValidateGraph::default()
        };
        let checked = self.client.validate(&asked).await?;
        let unknown = |code: &str| ["nothing_to_run", "unknown_table"].contains(&code);
        let wrong: Vec<_> = checked.errors.into_iter().filter(|item| !unknown(&item.code)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        crate::remote::failure::show_items(&wrong, miette::Severity::Error, Some(source));
        Err(Failure::Told)
    }
}

/// A statement as white space of the same lines and columns.
fn blank(statement: &str) -> String {
    statement.chars().map(|c| if c == '\n' { c } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_run_leaves_its_place() {
        assert_eq!(blank("SELECT 'é'\n;"), "          \n ");
    }
}
