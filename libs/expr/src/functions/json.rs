//! JSON in texts: values by simple paths `$.a.b[0]['c d']`.
//!
//! The text is read once per row; only the value at the path is kept. The whole text must be JSON, else the result is NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use graph::DataType;

use crate::bind::{Bind, Binder, Bound};
use crate::error::ExprError;
use crate::functions::text::{Texts, write_rows};
use crate::functions::{Function, TEXT, function, strict};

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["JSON_VALUE"], 2..=2, "JSON_VALUE(text, '$.a.b[0]')", json_value),
    function(&["JSON_QUERY"], 2..=2, "JSON_QUERY(text, '$.a')", json_query),
    function(&["JSON_EXISTS"], 2..=2, "JSON_EXISTS(text, '$.a')", json_exists),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Reads a constant path, `lax` or `strict` in front is taken as it is without a difference.
fn path(arg: &Bound) -> Result<Vec<Step>, ExprError> {
    let Some(text) = arg.text() else {
        return Err(ExprError::new("unsupported", "the path into JSON is a constant text")
            .hint("write '$.a.b[0]'")
            .at(arg.span));
    };
    let trimmed = text.trim();
    let trimmed =
        trimmed.strip_prefix("lax ").or_else(|| trimmed.strip_prefix("strict ")).unwrap_or(trimmed).trim_start();
    read_path(trimmed).ok_or_else(|| {
        ExprError::new("unsupported_path", format!("the path {text:?} is not a list of keys and indexes"))
            .hint("write '$.a.b[0]' or '$[''a b'']'")
            .at(arg.span)
    })
}

fn read_path(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let key = after[..end].trim_matches('"');
            if key.is_empty() || key.contains(['*', '?', '@', '(', ')']) {
                return None;
            }
            steps.push(Step::Key(key.to_string()));
            rest = &after[end..];
        } else {
            let after = rest.strip_prefix('[')?;
            let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'));
            rest = match quote {
                Some(quote) => {
                    let (key, after) = after[1..].split_once(quote)?;
                    steps.push(Step::Key(key.to_string()));
                    after.strip_prefix(']')?
                }
                None => {
                    let (index, after) = after.split_once(']')?;
                    steps.push(Step::Index(index.trim().parse().ok()?));
                    after
                }
            };
        }
    }
    Some(steps)
}

/// Nesting that is followed; deeper texts count as bad.
const DEPTH_MAX: usize = 256;

/// A cursor over JSON text.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// The whole text is JSON: the value at the path, as its text, or `Some(None)` if there is none; else `None`.
fn find<'a>(text: &'a str, path: &[Step]) -> Option<Option<&'a str>> {
    let mut scanner = Scanner { text, at: 0 };
    let mut found = None;
    scanner.value(Some(path), &mut found, 0)?;
    scanner.blanks();
    (scanner.at == text.len()).then_some(found)
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Reads a value. `path` is what is left of the path if the value lies on it; the last of equal keys wins.
    fn value(&mut self, path: Option<&[Step]>, found: &mut Option<&'a str>, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.blanks();
        let start = self.at;
        if path.is_some() {
            *found = None;
        }
        match self.peek()? {
            b'{' => {
                self.at += 1;
                self.blanks();
                if self.peek() == Some(b'}') {
                    self.at += 1;
                } else {
                    loop {
                        self.blanks();
                        let key = self.string()?;
                        self.expect(b':')?;
                        let below = match path {
                            Some([Step::Key(wanted), rest @ ..]) if unquoted(key)? == *wanted => Some(rest),
                            _ => None,
                        };
                        self.value(below, found, depth + 1)?;
                        self.blanks();
                        match self.peek()? {
                            b',' => self.at += 1,
                            b'}' => {
                                self.at += 1;
                                break;
                            }
                            _ => return None,
                        }
                    }
                }
            }
            b'[' => {
                self.at += 1;
                self.blanks();
                if self.peek() == Some(b']') {
                    self.at += 1;
                } else {
                    for index in 0.. {
                        let below = match path {
                            Some([Step::Index(wanted), rest @ ..]) if *wanted == index => Some(rest),
                            _ => None,
                        };
                        self.value(below, found, depth + 1)?;
                        self.blanks();
                        match self.peek()? {
                            b',' => self.at += 1,
                            b']' => {
                                self.at += 1;
                                break;
                            }
                            _ => return None,
                        }
                    }
                }
            }
            b'"' => {
                self.string()?;
            }
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        if path == Some(&[]) {
            *found = Some(&self.text[start..self.at]);
        }
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.text[start..self.at]);
                }
                b'\\' => match self.text.as_bytes().get(self.at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    b'u' => {
                        let digits = self.text.as_bytes().get(self.at + 2..self.at + 6)?;
                        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                        self.at += 6;
                    }
                    _ => return None,
                },
                0..=0x1F => return None,
                _ => self.at += 1,
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}

/// The text of a string that stands in quotes, escapes resolved; `None` for half a surrogate pair.
fn unquoted(string: &str) -> Option<String> {
    let inner = &string[1..string.len() - 1];
    if !inner.contains('\\') {
        return Some(inner.to_string());
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = &rest[at + 2..];
        let unit = |rest: &str| u32::from_str_radix(rest.get(..4)?, 16).ok();
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = unit(rest)?;
                rest = &rest[4..];
                match high {
                    0xD800..=0xDBFF => {
                        let low = unit(rest.strip_prefix("\\u")?).filter(|low| (0xDC00..=0xDFFF).contains(low))?;
                        rest = &rest[6..];
                        char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            other => char::from(other),
        });
    }
    out.push_str(rest);
    Some(out)
}

/// The scalar at the path as STRING; NULL for objects, arrays, null, nothing there, and bad JSON.
fn json_value(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let path = path(&args[1])?;
    strict("JSON_VALUE", TEXT, DataType::String).or_null().bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        write_rows(rows, |row, out| {
            let found = texts.get(row).and_then(|text| find(text, &path)).flatten();
            Ok(match found {
                None | Some("null") => None,
                Some(value) if value.starts_with(['{', '[']) => None,
                Some(value) if value.starts_with('"') => unquoted(value).map(|text| out.push_str(&text)),
                Some(value) => {
                    out.push_str(value);
                    Some(())
                }
            })
        })
    })
}

/// The object or array at the path, without blanks; NULL for anything else.
fn json_query(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let path = path(&args[1])?;
    strict("JSON_QUERY", TEXT, DataType::String).or_null().bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        write_rows(rows, |row, out| {
            let found = texts
                .get(row)
                .and_then(|text| find(text, &path))
                .flatten()
                .filter(|value| value.starts_with(['{', '[']));
            Ok(found.map(|value| {
                let (mut quoted, mut escaped) = (false, false);
                for c in value.chars() {
                    if quoted || !c.is_ascii_whitespace() {
                        out.push(c);
                    }
                    match c {
                        _ if escaped => escaped = false,
                        '\\' if quoted => escaped = true,
                        '"' => quoted = !quoted,
                        _ => {}
                    }
                }
            }))
        })
    })
}

/// Whether something, null too, is at the path; false for bad JSON.
fn json_exists(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let path = path(&args[1])?;
    strict("JSON_EXISTS", TEXT, DataType::Boolean).or_null().bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        let found = (0..rows).map(|row| texts.get(row).map(|text| find(text, &path).flatten().is_some()));
        Ok(Arc::new(found.collect::<BooleanArray>()) as ArrayRef)
    })
}
