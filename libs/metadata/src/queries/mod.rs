//! What is asked of the database, by subject. Each function works inside the session that it is given; those that change something expect
//! a transaction, and that changes with an audit line come one after the other (see [`audit::take_turn`]): what such a one has looked up
//! stays true until it commits.

pub(crate) mod answers;
pub(crate) mod audit;
pub(crate) mod catalogue;
pub(crate) mod epochs;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod operations;
pub(crate) mod runs;
pub(crate) mod savepoints;

use crate::session::Argument;

/// A query whose conditions depend on the request.
pub(crate) struct Conditional {
    pub(crate) sql: String,
    pub(crate) arguments: Vec<Argument>,
}

impl Conditional {
    pub(crate) fn new(sql: impl Into<String>) -> Conditional {
        Conditional { sql: sql.into(), arguments: Vec::new() }
    }

    /// Appends text in which each `?` is the next of `values`.
    pub(crate) fn push<const N: usize>(&mut self, text: &'static str, values: [Argument; N]) {
        let mut values = values.into_iter();
        for part in text.split_inclusive('?') {
            match part.strip_suffix('?') {
                None => self.sql.push_str(part),
                Some(before) => {
                    self.arguments.push(values.next().expect("there are as many values as placeholders"));
                    self.sql.push_str(before);
                    self.sql.push_str(&format!("${}", self.arguments.len()));
                }
            }
        }
        assert!(values.next().is_none(), "there are as many placeholders as values");
    }

    /// ` AND column IN (...)`, unless `values` is empty: then all will do.
    pub(crate) fn any_of(&mut self, before: &'static str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            self.push(if index == 0 { before } else { ", " }, []);
            self.push("?", [Argument::from(value)]);
        }
        if !values.is_empty() {
            self.push(")", []);
        }
    }
}
