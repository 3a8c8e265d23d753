//! Keeps passwords and keys of scripts out of what is shown of them.
//!
//! The value of an option whose name speaks of a secret is one, also where the name is misspelt or the script cannot be parsed: what is
//! wrong with a script is shown with its lines, and such a line goes to logs and tickets.

use graph::connector::is_secret_option;
use graph::{Problem, nearest};

/// Words that make an option's name that of a secret beside those of [`is_secret_option`], also misspelt: here hiding too much does no harm.
const SECRET_WORDS: [&str; 5] = ["credential", "key", "password", "secret", "token"];
/// Shorter values are hidden in excerpts only: in a message they could be a part of any word.
const MESSAGE_CHARS_MIN: usize = 4;

/// The texts that must not be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    values: Vec<String>,
}

impl Secrets {
    /// The script with a `*` for every character of a secret, so that lines and columns stay as they are; and the secrets.
    pub fn masked(text: &str) -> (String, Secrets) {
        let mut shown = String::with_capacity(text.len());
        let mut secrets = Secrets::default();
        // Whether a name before spoke of a secret, and this is what it is set to.
        let mut expected = Expected::Nothing;
        let mut paired = true;
        for token in tokens(text) {
            match token {
                Token::Space(space) => shown.push_str(space),
                Token::Other(other) => {
                    shown.push_str(other);
                    expected = match (expected, other) {
                        (Expected::Value, "=" | ":") => Expected::Value,
                        _ => Expected::Nothing,
                    };
                }
                Token::Text { quote, inner, closed } => {
                    shown.push(quote);
                    if expected == Expected::Value {
                        shown.extend(inner.chars().map(|c| if c == '\n' || c == '\r' { c } else { '*' }));
                        secrets.add(&inner.replace("''", "'"));
                        expected = Expected::Nothing;
                    } else {
                        shown.push_str(inner);
                        expected = if is_secret(inner) { Expected::Value } else { Expected::Nothing };
                    }
                    if closed {
                        shown.push(quote);
                    }
                    paired &= closed;
                }
            }
        }
        // Where a quote is missing somewhere, what stands in quotes is anyone's guess.
        (if paired { shown } else { shown.split_inclusive('\n').map(masked_line).collect() }, secrets)
    }

    /// With the value of a further option, if it is a secret.
    pub fn option(&mut self, name: &str, value: &str) {
        if is_secret(name) {
            self.add(value);
        }
    }

    fn add(&mut self, value: &str) {
        if value.chars().count() >= MESSAGE_CHARS_MIN {
            self.values.push(value.to_string());
        }
    }

    /// A text of a message without the secrets.
    pub fn hide(&self, text: &str) -> String {
        self.values.iter().fold(text.to_string(), |text, secret| text.replace(secret.as_str(), "***"))
    }

    /// A problem that may be shown.
    pub fn hidden(&self, problem: &Problem) -> Problem {
        Problem {
            message: self.hide(&problem.message),
            hint: problem.hint.as_deref().map(|hint| self.hide(hint)),
            ..problem.clone()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Nothing,
    Value,
}

/// Whether an option's name speaks of a secret, spelling aside.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    is_secret_option(&name)
        || SECRET_WORDS.iter().any(|word| name.contains(word))
        || name.split(|c: char| !c.is_alphanumeric()).any(|word| nearest(word, SECRET_WORDS).is_some())
}

/// A line with all letters and digits masked behind the first name that speaks of a secret.
fn masked_line(line: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let mut at = 0;
    for name in line.split_inclusive(|c| !is_name(c)) {
        at += name.len();
        if is_secret(name) {
            let masked = line[at..].chars().map(|c| if is_name(c) { '*' } else { c });
            return line[..at].chars().chain(masked).collect();
        }
    }
    line.to_string()
}

/// A piece of SQL or JSON, as far as it matters here.
enum Token<'a> {
    /// White space and comments.
    Space(&'a str),
    /// What stands in quotes, and whether they are closed: else it is the rest of the script.
    Text {
        quote: char,
        inner: &'a str,
        closed: bool,
    },
    Other(&'a str),
}

/// All of a text in pieces.
fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let (token, length) = match first {
            '\'' | '"' | '`' => {
                let (length, closed) = quoted(&rest[1..], first);
                let inner = &rest[1..1 + length];
                (Token::Text { quote: first, inner, closed }, 1 + length + usize::from(closed))
            }
            _ => {
                let space = if rest.starts_with("--") {
                    rest.find('\n').unwrap_or(rest.len())
                } else if rest.starts_with("/*") {
                    rest.find("*/").map_or(rest.len(), |end| end + 2)
                } else {
                    rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
                };
                match space {
                    0 => (Token::Other(&rest[..first.len_utf8()]), first.len_utf8()),
                    _ => (Token::Space(&rest[..space]), space),
                }
            }
        };
        rest = &rest[length..];
        Some(token)
    })
}

/// The bytes before the closing quote, and whether there is one. A doubled quote and, in JSON's quotes, one behind a backslash are content.
fn quoted(rest: &str, quote: char) -> (usize, bool) {
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote == '"' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return (at, true);
        }
    }
    (rest.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let (shown, _) = Secrets::masked(text);
        let widths = |text: &str| text.lines().map(|line| line.chars().count()).collect::<Vec<_>>();
        assert_eq!(widths(&shown), widths(text), "columns stay");
        shown
    }

    #[test]
    fn secrets_are_masked_however_their_names_are_spelt() {
        for name in [
            "s3.secret-key",
            "s3.secretkey",
            "s3.secert",
            "s3.acces-key",
            "S3.KEY",
            "my_passwrd",
            "api.token",
            "credentials",
            "client-secret",
        ] {
            let shown = masked(&format!("WITH ('path' = 'öut',\n '{name}' = 'VERY''SECRET', 'format' = 'csv')"));
            assert_eq!(shown, format!("WITH ('path' = 'öut',\n '{name}' = '{}', 'format' = 'csv')", "*".repeat(12)));
        }
        assert_eq!(
            masked("{\"s3.secret-key\" : \"a\\\"b\", \"path\": \"x\"}"),
            "{\"s3.secret-key\" : \"****\", \"path\": \"x\"}"
        );
    }

    #[test]
    fn scripts_that_cannot_be_parsed_are_masked_too() {
        assert_eq!(masked("'secret' 'abc')"), "'secret' '***')");
        assert_eq!(masked("'secret' == 'abc')"), "'secret' == '***')");
        assert_eq!(masked("'secret' /* = */ = -- 'x'\n 'abc"), "'secret' /* = */ = ** '*'\n '***");
        assert_eq!(
            masked("SELECT 'a;\nWITH ('secret'='abc', 'path'='x')"),
            "SELECT 'a;\nWITH ('secret'='***', '****'='*')"
        );
        assert_eq!(masked("'secret' = 'abc\n', 'path' = 'x'"), "'secret' = '***\n', 'path' = 'x'");
    }

    #[test]
    fn everything_else_is_shown() {
        for text in [
            "SELECT key FROM t WHERE key = 'abc' AND 'keyboard', 'abc';",
            "WITH ('connector' = 'replay', 'replay.then' = 'end', 'fields.n.kind' = 'random')",
            "-- the 'secret' = 'abc' is it\nSELECT 'it''s', `a`, \"b\"",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn messages_do_not_repeat_secrets() {
        let (_, mut secrets) = Secrets::masked("'s3.secret-key' 'VERYSECRET'");
        secrets.option("s3.secret-key", "OTHERONE");
        secrets.option("path", "a/path");
        secrets.option("token", "a");
        let problem = Problem::new("x", "found 'VERYSECRET' and a OTHERONE").hint("drop VERYSECRET in a/path");
        let hidden = secrets.hidden(&problem);
        assert_eq!(hidden.message, "found '***' and a ***");
        assert_eq!(hidden.hint.as_deref(), Some("drop *** in a/path"));
    }
}
