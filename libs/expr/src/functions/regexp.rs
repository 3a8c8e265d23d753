//! Regular expressions: Java's syntax as far as the linear-time engine of the `regex` crate has it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use datafusion_common::Result;
use graph::DataType;
use regex::Regex;

use crate::bind::{Bind, Binder, Bound};
use crate::error::{ExprError, fault};
use crate::functions::text::{Ints, Texts, write_rows};
use crate::functions::{Function, Strict, TEXT, function, strict};

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["REGEXP", "REGEXP_LIKE"], 2..=2, "REGEXP(text, pattern)", regexp),
    function(&["REGEXP_EXTRACT"], 2..=3, "REGEXP_EXTRACT(text, pattern[, group])", regexp_extract),
    function(&["REGEXP_REPLACE"], 3..=3, "REGEXP_REPLACE(text, pattern, replacement)", regexp_replace),
];

/// Compiled patterns by their text; `None` for one that is wrong.
struct Patterns {
    known: HashMap<String, Option<Regex>>,
}

impl Patterns {
    /// With the pattern of the call if it is constant; one that Java has and we do not is refused.
    fn of(arg: &Bound) -> Result<Patterns, ExprError> {
        let mut known = HashMap::new();
        if let Some(pattern) = arg.text() {
            let regex = compile(pattern).map_err(|message| {
                let error = ExprError::new("unsupported_pattern", message).at(arg.span);
                error.hint("write it without looking ahead or back and without references to groups")
            })?;
            known.insert(pattern.to_string(), regex);
        }
        Ok(Patterns { known })
    }

    fn cache(&self) -> Cache<'_> {
        Cache { constant: self, met: HashMap::new() }
    }
}

/// Patterns of one batch: those that were constant, and those met in it.
struct Cache<'a> {
    constant: &'a Patterns,
    met: HashMap<String, Option<Regex>>,
}

impl Cache<'_> {
    fn get(&mut self, pattern: &str) -> Result<Option<&Regex>> {
        if let Some(regex) = self.constant.known.get(pattern) {
            return Ok(regex.as_ref());
        }
        if !self.met.contains_key(pattern) {
            let regex = compile(pattern).map_err(fault)?;
            self.met.insert(pattern.to_string(), regex);
        }
        Ok(self.met.get(pattern).and_then(Option::as_ref))
    }
}

/// `Ok(None)`: no pattern in Java either; `Err`: one that we cannot run.
fn compile(pattern: &str) -> Result<Option<Regex>, String> {
    let (translated, unsupported) = translate(pattern);
    match Regex::new(&translated) {
        Ok(regex) => Ok(Some(regex)),
        Err(_) if unsupported => {
            Err(format!("the pattern {pattern:?} looks around or refers to groups, which is not supported"))
        }
        Err(regex::Error::CompiledTooBig(_)) => Err(format!("the pattern {pattern:?} is too large")),
        Err(_) => Ok(None),
    }
}

/// Java's classes are of ASCII. Also tells whether the pattern has what only a backtracking engine can do.
fn translate(pattern: &str) -> (String, bool) {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut unsupported =
        ["(?=", "(?!", "(?<=", "(?<!", "(?>", "*+", "++", "?+", "}+"].iter().any(|form| pattern.contains(form));
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('s') => out.push_str("[ \\t\\n\\x0B\\f\\r]"),
            Some('S') => out.push_str("[^ \\t\\n\\x0B\\f\\r]"),
            Some(digit @ '1'..='9') => {
                unsupported = true;
                out.push('\\');
                out.push(digit);
            }
            Some('k') => {
                unsupported = true;
                out.push_str("\\k");
            }
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    (out, unsupported)
}

/// The patterns of a call, and the call, which is NULL for a wrong pattern and can fail at one that is not constant.
fn by_pattern(
    name: &'static str,
    wanted: &'static [DataType],
    out: DataType,
    pattern: &Bound,
) -> Result<(Patterns, Strict), ExprError> {
    let strict = strict(name, wanted, out).or_null();
    Ok((Patterns::of(pattern)?, if pattern.literal.is_none() { strict.fallible() } else { strict }))
}

/// Whether the pattern is found in the text; NULL for a pattern that is none.
fn regexp(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let (patterns, strict) = by_pattern("REGEXP", TEXT, DataType::Boolean, &args[1])?;
    strict.bind(binder, args, move |args, rows| {
        let (texts, wanted) = (Texts::of(&args[0]), Texts::of(&args[1]));
        let mut cache = patterns.cache();
        let mut found: Vec<Option<bool>> = Vec::with_capacity(rows);
        for row in 0..rows {
            found.push(match texts.get(row).zip(wanted.get(row)) {
                None => None,
                Some((text, pattern)) => cache.get(pattern)?.map(|regex| regex.is_match(text)),
            });
        }
        Ok(Arc::new(BooleanArray::from(found)) as ArrayRef)
    })
}

/// The first match of the pattern, or of one of its groups; NULL if there is none, or no such group, or the pattern is none.
fn regexp_extract(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let wanted = &[DataType::String, DataType::String, DataType::Int];
    let (patterns, strict) = by_pattern("REGEXP_EXTRACT", wanted, DataType::String, &args[1])?;
    strict.bind(binder, args, move |args, rows| {
        let (texts, wanted) = (Texts::of(&args[0]), Texts::of(&args[1]));
        let groups = args.get(2).map(Ints::of);
        let mut cache = patterns.cache();
        write_rows(rows, |row, out| {
            let (Some(text), Some(pattern)) = (texts.get(row), wanted.get(row)) else { return Ok(None) };
            let group = groups.as_ref().map_or(Some(0), |groups| groups.get(row));
            let Some(group) = group.and_then(|group| usize::try_from(group).ok()) else { return Ok(None) };
            let Some(regex) = cache.get(pattern)? else { return Ok(None) };
            let found = match group {
                0 => regex.find(text),
                group => regex.captures(text).and_then(|captures| captures.get(group)),
            };
            Ok(found.map(|found| out.push_str(found.as_str())))
        })
    })
}

/// Every match replaced; `$1` in the replacement is a group. NULL for a pattern that is none.
fn regexp_replace(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let (patterns, strict) = by_pattern("REGEXP_REPLACE", TEXT, DataType::String, &args[1])?;
    strict.bind(binder, args, move |args, rows| {
        let (texts, wanted, replacements) = (Texts::of(&args[0]), Texts::of(&args[1]), Texts::of(&args[2]));
        let mut cache = patterns.cache();
        let mut last: Option<(&str, String)> = None;
        write_rows(rows, |row, out| {
            let (Some(text), Some(pattern), Some(replacement)) =
                (texts.get(row), wanted.get(row), replacements.get(row))
            else {
                return Ok(None);
            };
            let Some(regex) = cache.get(pattern)? else { return Ok(None) };
            if last.as_ref().is_none_or(|(known, _)| *known != replacement) {
                last = Some((replacement, java_replacement(replacement)));
            }
            let template = last.as_ref().map_or("", |(_, template)| template.as_str());
            out.push_str(&regex.replace_all(text, template));
            Ok(Some(()))
        })
    })
}

/// Java's `$1x` is group 1 and an x; a backslash takes the next character as it is.
fn java_replacement(replacement: &str) -> String {
    let mut out = String::with_capacity(replacement.len() + 4);
    let mut chars = replacement.chars().peekable();
    let literal = |out: &mut String, c: char| {
        out.push(c);
        // Ours is written twice.
        if c == '$' {
            out.push('$');
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => chars.next().into_iter().for_each(|c| literal(&mut out, c)),
            '$' => match chars.next_if(char::is_ascii_digit) {
                Some(digit) => out.push_str(&format!("${{{digit}}}")),
                None => match chars.next_if_eq(&'{') {
                    Some(_) => out.push_str("${"),
                    None => out.push_str("$$"),
                },
            },
            c => out.push(c),
        }
    }
    out
}
