//! Whether two results hold the same rows, whatever their order.
//!
//! A result is a multiset of rows; a row is a JSON object. A changelog is folded first: what was taken back is not
//! part of the result. Floating point numbers may differ by a relative 1e-9, because the order of a sum is not fixed;
//! everything else is compared exactly, timestamps by their meaning (`T` or a space, with or without trailing zeros).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub type Row = Map<String, Value>;

/// The column that carries the row kind of a changelog: `+I`, `-U`, `+U` or `-D`.
pub const KIND: &str = "op";

/// Relative difference below which two floating point numbers count as equal (design: "Determinism").
const TOLERANCE: f64 = 1e-9;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{place}, line {line}: not a JSON object: {text}")]
    Row { place: String, line: usize, text: String },
    #[error("the changelog takes back a row that it never gave: {row}")]
    Negative { row: String },
    #[error("unknown row kind {kind:?} in {row}")]
    Kind { kind: String, row: String },
}

/// Rows of JSON lines. `place` names the text in an error.
pub fn rows(text: &str, place: &str) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(Value::Object(row)) => rows.push(row),
            _ => return Err(Error::Row { place: place.into(), line: index + 1, text: line.into() }),
        }
    }
    Ok(rows)
}

/// Rows of a file of JSON lines, or of every such file below a folder. Names that begin with `.` or `_` are no data.
pub fn rows_at(path: &Path) -> Result<Vec<Row>, Error> {
    let read = |source| Error::Read { path: path.into(), source };
    if !path.is_dir() {
        return rows(&std::fs::read_to_string(path).map_err(read)?, &path.display().to_string());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(['.', '_']) {
            entries.push(entry.path());
        }
    }
    entries.sort();
    let mut all = Vec::new();
    for entry in entries {
        all.extend(rows_at(&entry)?);
    }
    Ok(all)
}

/// The rows that remain of a changelog; a result without kinds is returned as it is.
///
/// Every `-U` and `-D` takes back one equal row. An upsert changelog has no `-U`: there, with `key`, a row replaces the
/// row of its key, and a `-D` removes it.
pub fn fold(rows: Vec<Row>, key: &[String]) -> Result<Vec<Row>, Error> {
    if !rows.iter().any(|row| row.contains_key(KIND)) {
        return Ok(rows);
    }
    let upserts = !key.is_empty() && !rows.iter().any(|row| row.get(KIND).is_some_and(|kind| kind == "-U"));
    let mut counted: BTreeMap<String, (Row, i64)> = BTreeMap::new();
    for mut row in rows {
        let text = || Value::Object(row.clone()).to_string();
        let kind = match row.get(KIND) {
            None | Some(Value::Null) => "+I".to_owned(),
            Some(Value::String(kind)) => kind.clone(),
            Some(other) => return Err(Error::Kind { kind: other.to_string(), row: text() }),
        };
        let adds = match kind.as_str() {
            "+I" | "+U" => true,
            "-U" | "-D" => false,
            _ => return Err(Error::Kind { kind, row: text() }),
        };
        row.remove(KIND);
        if !upserts {
            let entry = counted.entry(canonical(&row)).or_insert((row, 0));
            entry.1 += if adds { 1 } else { -1 };
        } else {
            let of_key = key.iter().map(|name| (name.clone(), row.get(name).cloned().unwrap_or(Value::Null))).collect();
            counted.insert(canonical(&of_key), (row, i64::from(adds)));
        }
    }
    let mut left = Vec::new();
    for (text, (row, count)) in counted {
        if count < 0 {
            return Err(Error::Negative { row: text });
        }
        left.extend(std::iter::repeat_n(row, count.unsigned_abs() as usize));
    }
    Ok(left)
}

/// Compares two results as multisets. `Err` says what only one of them has, shortened for reading.
pub fn same_rows(left: &[Row], right: &[Row]) -> Result<(), String> {
    let floats = float_columns(left.iter().chain(right));
    let (mut left_groups, mut right_groups) = (groups(left, &floats), groups(right, &floats));
    let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
    for (exact, rows) in &mut left_groups {
        let others = right_groups.get_mut(exact).map(std::mem::take).unwrap_or_default();
        pair_off(std::mem::take(rows), others, &mut only_left, &mut only_right);
    }
    only_right.extend(right_groups.into_values().flatten());
    if only_left.is_empty() && only_right.is_empty() {
        return Ok(());
    }
    let mut report = format!("{} rows against {} rows\n", left.len(), right.len());
    for (mark, rows) in [('<', &only_left), ('>', &only_right)] {
        for row in rows.iter().take(20) {
            report.push_str(&format!("{mark} {}\n", canonical(row.0)));
        }
        if rows.len() > 20 {
            report.push_str(&format!("{mark} ... {} more\n", rows.len() - 20));
        }
    }
    Err(report)
}

/// Compares two results as sequences: for queries with ORDER BY.
pub fn same_sequence(left: &[Row], right: &[Row]) -> Result<(), String> {
    if left.len() != right.len() {
        return Err(format!("{} rows against {} rows\n", left.len(), right.len()));
    }
    for (index, (one, other)) in left.iter().zip(right).enumerate() {
        same_rows(std::slice::from_ref(one), std::slice::from_ref(other))
            .map_err(|report| format!("row {}: {report}", index + 1))?;
    }
    Ok(())
}

/// A row whose floating point numbers are apart: `(row, numbers in the order of the float columns)`.
type Split<'a> = (&'a Row, Vec<f64>);

fn float_columns<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        for (name, value) in row {
            if value.is_f64() && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names.sort_unstable();
    names
}

/// Rows by the text of everything that is compared exactly. Rows of one group differ in floating point numbers at most.
fn groups<'a>(rows: &'a [Row], floats: &[&str]) -> BTreeMap<String, Vec<Split<'a>>> {
    let mut groups: BTreeMap<String, Vec<Split>> = BTreeMap::new();
    for row in rows {
        let mut exact = row.clone();
        let mut numbers = Vec::new();
        for name in floats {
            if let Some(number) = row.get(*name).and_then(Value::as_f64) {
                exact.insert((*name).into(), Value::String("\u{0}number".into()));
                numbers.push(number);
            }
        }
        groups.entry(canonical(&exact)).or_default().push((row, numbers));
    }
    groups
}

fn pair_off<'a>(
    mut left: Vec<Split<'a>>,
    mut right: Vec<Split<'a>>,
    only_left: &mut Vec<Split<'a>>,
    only_right: &mut Vec<Split<'a>>,
) {
    let by_numbers = |one: &Split, other: &Split| {
        one.1
            .iter()
            .zip(&other.1)
            .map(|(a, b)| a.total_cmp(b))
            .find(|order| order.is_ne())
            .unwrap_or(one.1.len().cmp(&other.1.len()))
    };
    left.sort_by(by_numbers);
    right.sort_by(by_numbers);
    if left.len() == right.len() && left.iter().zip(&right).all(|(one, other)| close(&one.1, &other.1)) {
        return;
    }
    // Neighbours whose first numbers are nearly equal may have sorted differently: look for any partner.
    for one in left {
        match right.iter().position(|other| close(&one.1, &other.1)) {
            Some(index) => {
                right.remove(index);
            }
            None => only_left.push(one),
        }
    }
    only_right.extend(right);
}

fn close(left: &[f64], right: &[f64]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(a, b)| a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()))
}

/// One text per meaning: columns by name, timestamps in one notation.
fn canonical(row: &Row) -> String {
    let sorted: BTreeMap<&String, String> = row.iter().map(|(name, value)| (name, canonical_value(value))).collect();
    let columns: Vec<String> = sorted.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    columns.join(" ")
}

fn canonical_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", plain_timestamp(text).unwrap_or_else(|| text.clone())),
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_value).collect::<Vec<_>>().join(",")),
        Value::Object(row) => format!("{{{}}}", canonical(row)),
        other => other.to_string(),
    }
}

/// `2024-01-01T00:00:00.500Z` and `2024-01-01 00:00:00.5` are the same time.
fn plain_timestamp(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    let shaped = bytes.len() >= 19
        && text.is_ascii()
        && digits(0..4)
        && bytes[4] == b'-'
        && digits(5..7)
        && bytes[7] == b'-'
        && digits(8..10)
        && matches!(bytes[10], b'T' | b' ')
        && digits(11..13)
        && bytes[13] == b':'
        && digits(14..16)
        && bytes[16] == b':'
        && digits(17..19);
    if !shaped {
        return None;
    }
    let rest = text[19..].strip_suffix('Z').unwrap_or(&text[19..]);
    let fraction = match rest.strip_prefix('.') {
        Some(fraction) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => fraction.trim_end_matches('0'),
        None if rest.is_empty() => "",
        _ => return None,
    };
    let (date, time) = (&text[..10], &text[11..19]);
    Some(if fraction.is_empty() { format!("{date} {time}") } else { format!("{date} {time}.{fraction}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(text: &str) -> Vec<Row> {
        rows(text, "test").unwrap()
    }

    #[test]
    fn order_of_rows_and_columns_does_not_matter_but_their_number_does() {
        let left = of("{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"y\"}\n{\"a\":2,\"b\":\"y\"}");
        assert_eq!(
            same_rows(&left, &of("{\"b\":\"y\",\"a\":2}\n{\"a\":2,\"b\":\"y\"}\n{\"a\":1,\"b\":\"x\"}")),
            Ok(())
        );
        assert!(same_rows(&left, &left[..2]).is_err());
        assert!(same_rows(&left[..2], &left).is_err());
        assert!(same_rows(&left, &of("{\"a\":1,\"b\":\"x\"}\n{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"y\"}")).is_err());
        assert!(same_sequence(&left[..2], &[left[1].clone(), left[0].clone()]).is_err());
    }

    #[test]
    fn floats_are_compared_within_a_tolerance_and_integers_exactly() {
        let third = of("{\"k\":1,\"v\":0.3333333333333333}\n{\"k\":1,\"v\":5.0}");
        assert_eq!(same_rows(&third, &of("{\"k\":1,\"v\":5}\n{\"k\":1,\"v\":0.33333333333333337}")), Ok(()));
        assert!(same_rows(&third, &of("{\"k\":1,\"v\":5}\n{\"k\":1,\"v\":0.33333334}")).is_err());
        assert!(same_rows(&of("{\"v\":9007199254740993}"), &of("{\"v\":9007199254740992}")).is_err());
        assert!(same_rows(&of("{\"v\":null}"), &of("{\"v\":0.0}")).is_err());
    }

    #[test]
    fn neighbours_that_sort_differently_still_find_their_partners() {
        let left = of("{\"a\":1.0,\"b\":1.5}\n{\"a\":1.0000000000001,\"b\":2.5}");
        let right = of("{\"a\":1.0000000000001,\"b\":1.5}\n{\"a\":1.0,\"b\":2.5}");
        assert_eq!(same_rows(&left, &right), Ok(()));
    }

    #[test]
    fn a_timestamp_is_compared_by_its_meaning() {
        let left = of("{\"t\":\"2024-01-01T00:00:00.500Z\"}");
        assert_eq!(same_rows(&left, &of("{\"t\":\"2024-01-01 00:00:00.5\"}")), Ok(()));
        assert!(same_rows(&left, &of("{\"t\":\"2024-01-01 00:00:00.05\"}")).is_err());
    }

    #[test]
    fn a_changelog_is_folded_to_what_remains() {
        let log = "{\"op\":\"+I\",\"k\":1,\"n\":1}\n{\"op\":\"-U\",\"k\":1,\"n\":1}\n{\"op\":\"+U\",\"k\":1,\"n\":2}\n\
                   {\"op\":\"+I\",\"k\":2,\"n\":7}\n{\"op\":\"-D\",\"k\":2,\"n\":7}";
        assert_eq!(fold(of(log), &[]).unwrap(), of("{\"k\":1,\"n\":2}"));
        let upserts =
            "{\"op\":\"+I\",\"k\":1,\"n\":1}\n{\"op\":\"+U\",\"k\":1,\"n\":2}\n{\"op\":\"-D\",\"k\":2,\"n\":7}";
        assert_eq!(fold(of(upserts), &["k".into()]).unwrap(), of("{\"k\":1,\"n\":2}"));
        assert!(matches!(fold(of("{\"op\":\"-D\",\"k\":1}"), &[]), Err(Error::Negative { .. })));
        assert!(matches!(fold(of("{\"op\":\"?\",\"k\":1}"), &[]), Err(Error::Kind { .. })));
    }
}
