//! Schemas of Avro messages, from a registry with Confluent's routes.
//!
//! A source makes one [`Schemas`] when it opens, and a [`formats::avro::MessageDecoder`] for each part (value, key) of each split. Before
//! each record it asks the decoder, which costs two comparisons while the schema is that of the record before:
//!
//! ```text
//! let schemas = registry::Schemas::open(&options, allows)?;          // once; an Arc to clone
//! let mut decoder = MessageDecoder::new(columns)?;                   // per split
//! if decoder.needs(message).is_some() {
//!     schemas.supply(&mut decoder, message).await?;                  // Err: the run fails, the registry cannot be reached or refuses us
//! }
//! decoder.decode_record(message)                                     // a schema that does not exist is a bad record: schema_unknown
//! ```
//!
//! A sink registers the schema of its columns when it opens, and writes with the id that it was given:
//!
//! ```text
//! let id = schemas.register(&registry::subject(&options, topic, Part::Value), &columns, table).await?;
//! let mut encoder = MessageEncoder::new(columns, id)?;
//! encoder.encode_each(&batch, &mut bytes, &mut ends)?;               // message i ends at ends[i]
//! ```

mod client;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use engine::RunError;
use formats::avro::{MessageDecoder, derived_schema};
use graph::AvroConfluentOptions;

use client::{Client, Failure};

use crate::http::Allows;

/// Schemas that are remembered; more, and all are forgotten.
const MAX_KNOWN: usize = 10_000;

/// What a registry did not have it may have by now: after this it is asked again.
const MISSING_FOR: Duration = Duration::from_secs(30);

/// Schemas that one schema may refer to, directly and through others.
const MAX_REFERENCES: usize = 64;

/// What a message's schema is registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Key,
    Value,
}

/// The subject under which a sink registers the schema of its keys or values.
pub fn subject(options: &AvroConfluentOptions, topic: &str, part: Part) -> String {
    let (given, suffix) = match part {
        Part::Key => (&options.key_subject, "key"),
        Part::Value => (&options.subject, "value"),
    };
    given.clone().unwrap_or_else(|| format!("{topic}-{suffix}"))
}

/// The schemas of one registry, each fetched once.
#[derive(Clone)]
pub struct Schemas {
    client: Client,
    known: Arc<Mutex<HashMap<u32, Arc<Known>>>>,
    missing_for: Duration,
}

/// What became of asking for an id.
enum Known {
    Found { text: String, references: Vec<String> },
    Refused(String, Instant),
}

impl Known {
    fn refused(why: String) -> Known {
        Known::Refused(why, Instant::now())
    }
}

impl Schemas {
    /// Opens nothing yet: the registry is spoken to when a schema is needed.
    ///
    /// # Errors
    /// Options that cannot be used (`invalid_option`).
    pub fn open(options: &AvroConfluentOptions, allows: Allows) -> Result<Schemas, RunError> {
        if let Some(problem) = options.problems("").into_iter().next() {
            let error = RunError::user("invalid_option", problem.message);
            return Err(match problem.hint {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        Ok(Schemas { client: Client::new(options, allows)?, known: Arc::default(), missing_for: MISSING_FOR })
    }

    /// Tells the decoder the schema of this message, if it needs it. A schema that does not exist, or cannot be one of Avro, is told as such:
    /// its records are bad.
    ///
    /// # Errors
    /// `registry_unreachable` (after retries), `registry_denied`, `location_not_allowed`, `registry_failed`: nothing is known about the
    /// message then, and nothing is lost by failing the run.
    pub async fn supply(&self, decoder: &mut MessageDecoder, message: &[u8]) -> Result<(), RunError> {
        let Some(id) = decoder.needs(message) else { return Ok(()) };
        let known = self.remembered().get(&id).cloned();
        let is_old = |known: &Known| matches!(known, Known::Refused(_, at) if at.elapsed() >= self.missing_for);
        let known = match known.filter(|known| !is_old(known)) {
            Some(known) => known,
            None => {
                let fetched = Arc::new(self.fetch(id).await?);
                let mut all = self.remembered();
                if all.len() >= MAX_KNOWN {
                    all.clear();
                }
                all.insert(id, fetched.clone());
                fetched
            }
        };
        match &*known {
            Known::Found { text, references } => decoder.add_schema(id, text, references),
            Known::Refused(why, _) => decoder.refuse_schema(id, why),
        }
        Ok(())
    }

    /// How many subjects there are: whether the registry can be asked at all.
    ///
    /// # Errors
    /// Those of [`supply`](Self::supply).
    pub async fn subjects(&self) -> Result<usize, RunError> {
        match self.client.subjects().await {
            Ok(count) => Ok(count),
            Err(Failure::Missing(why)) => Err(RunError::external("registry_failed", why)),
            Err(Failure::Fatal(error)) => Err(error),
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, id: u32) -> Result<Known, RunError> {
        let found = match self.client.by_id(id).await {
            Ok(found) => found,
            Err(Failure::Missing(why)) => return Ok(Known::refused(why)),
            Err(Failure::Fatal(error)) => return Err(error),
        };
        if found.kind != "AVRO" {
            return Ok(Known::refused(format!("it is a schema of {}, not of Avro", found.kind)));
        }
        // Each reference behind those that it needs itself: a stack of what is to be fetched, and of what has been and waits for its own.
        let (mut references, mut seen) = (Vec::new(), Vec::new());
        let mut stack: Vec<Step> = found.references.into_iter().rev().map(Step::Fetch).collect();
        while let Some(step) = stack.pop() {
            let (subject, version) = match step {
                Step::Keep(text) => {
                    references.push(text);
                    continue;
                }
                Step::Fetch(reference) => reference,
            };
            if seen.contains(&(subject.clone(), version)) {
                continue;
            }
            if seen.len() == MAX_REFERENCES {
                return Ok(Known::refused(format!("it refers to more than {MAX_REFERENCES} others")));
            }
            match self.client.by_version(&subject, version).await {
                Ok(found) => {
                    stack.push(Step::Keep(found.text));
                    stack.extend(found.references.into_iter().rev().map(Step::Fetch));
                }
                Err(Failure::Missing(why)) => {
                    return Ok(Known::refused(format!("it refers to version {version} of {subject}: {why}")));
                }
                Err(Failure::Fatal(error)) => return Err(error),
            }
            seen.push((subject, version));
        }
        Ok(Known::Found { text: found.text, references })
    }

    /// Registers the schema of these columns under a subject (nothing happens if it is there already), and gives its id. `record` is its name.
    ///
    /// # Errors
    /// Columns that Avro cannot carry (`invalid_option`), a schema that the subject's others are not compatible with
    /// (`schema_incompatible`), and those of [`supply`](Self::supply).
    pub async fn register(&self, subject: &str, columns: &SchemaRef, record: &str) -> Result<u32, RunError> {
        let text = derived_schema(columns, record)
            .map_err(|error| RunError::user("invalid_option", format!("cannot write {record} as Avro: {error}")))?;
        match self.client.register(subject, &text).await {
            Ok(id) => Ok(id),
            Err(Failure::Missing(why)) => {
                let message = format!("cannot register the schema of {record} under {subject}: {why}");
                Err(RunError::external("registry_failed", message))
            }
            Err(Failure::Fatal(error)) => Err(error),
        }
    }
}

enum Step {
    /// A subject and its version.
    Fetch((String, u64)),
    Keep(String),
}
