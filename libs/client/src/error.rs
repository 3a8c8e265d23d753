//! Why a request gave no answer, or a bad one.

use api::Problem;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server has answered with a problem.
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<Problem>),
    /// There was no answer: nobody listens, the name is unknown, the connection broke, or it took too long.
    #[error("cannot reach {url}: {cause}")]
    Unreachable { url: String, cause: String },
    /// What answered is not this API.
    #[error("{url} does not answer as a Highwater server: {reason}")]
    NotOurs { url: String, reason: String },
    /// Rows broke off after the first ones.
    #[error("the rows broke off before their end: {cause}")]
    Broken { cause: String },
    #[error("{url} is no address of a server: {reason}")]
    Url { url: String, reason: String },
    #[error("the API key has characters that no key has")]
    Key,
}

impl Error {
    /// The problem that the server has answered with.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The problem's stable code.
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|problem| problem.code.as_str())
    }
}

/// An error with what caused it, innermost last.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
