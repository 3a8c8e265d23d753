//! What is wrong with a graph or a script, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong (or worth a warning), for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable, snake_case; what programs match on.
    pub code: String,
    /// What was attempted, on what, and why not.
    pub message: String,
    /// What to do or write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(flatten)]
    pub place: Place,
}

/// Where a problem is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// A range of SQL text; lines and columns count from 1, in characters; the end is exclusive.
    Span { line: u64, column: u64, end_line: u64, end_column: u64 },
    /// A JSON Pointer (RFC 6901) into the graph document.
    Pointer { pointer: String },
    #[default]
    Nowhere,
}

impl Problem {
    /// Without a hint and a place. `code` is stable and for programs; `message` is for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { code: code.into(), message: message.into(), hint: None, place: Place::Nowhere }
    }

    /// With what to do instead.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// With the place that is wrong.
    pub fn at(mut self, place: Place) -> Problem {
        self.place = place;
        self
    }

    /// With a JSON Pointer (RFC 6901) as its place.
    pub fn pointer(self, pointer: impl Into<String>) -> Problem {
        self.at(Place::Pointer { pointer: pointer.into() })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Span { line, column, .. } => write!(f, "line {line}, column {column}: ")?,
            Place::Pointer { pointer } => write!(f, "{}: ", if pointer.is_empty() { "/" } else { pointer })?,
            Place::Nowhere => {}
        }
        write!(f, "{} [{}]", self.message, self.code)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

/// The known name that a mistyped one most likely meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.chars().count().max(wrong.chars().count()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// `did you mean x?`, or the list of what there is.
pub fn suggestion<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(wrong, known.clone()) {
        Some(name) => format!("did you mean {name}?"),
        None => {
            let mut names: Vec<&str> = known.into_iter().collect();
            names.sort_unstable();
            let more = names.len().saturating_sub(20);
            names.truncate(20);
            match (names.is_empty(), more) {
                (true, _) => "there is none".to_string(),
                (false, 0) => format!("there is {}", names.join(", ")),
                (false, more) => format!("there is {} and {more} more", names.join(", ")),
            }
        }
    }
}
