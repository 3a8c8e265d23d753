//! One accepted JSON value into one column: the slow path of the scanner, and all of lists and maps.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::columns::{Column, Data, Kind, Refusal, Scalar};
use crate::json::lex::{Members, unescape};
use crate::text::{self, Misfit, TimestampFormat};

pub(crate) fn as_text(accepted: &[u8]) -> &str {
    std::str::from_utf8(accepted).expect("the scanner accepts only UTF-8")
}

/// The text of a string given with its quotes.
pub(crate) fn string_text<'a>(quoted: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a str {
    let inside = &quoted[1..quoted.len() - 1];
    if !inside.contains(&b'\\') {
        return as_text(inside);
    }
    scratch.clear();
    unescape(inside, scratch);
    as_text(scratch)
}

/// A value of a fixed size from an accepted value that is not null.
pub(crate) fn fixed(kind: Kind, raw: &[u8], format: TimestampFormat, scratch: &mut Vec<u8>) -> Result<Scalar, Misfit> {
    match (raw[0], kind) {
        // A number that the grammar accepted needs no second look before it is parsed.
        (b'-' | b'0'..=b'9', Kind::Float64) => match as_text(raw).parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Scalar::Bits(value.to_bits() as i64)),
            _ => Err(Misfit::OutOfRange),
        },
        (b'-' | b'0'..=b'9', Kind::Boolean | Kind::Date | Kind::Time { .. }) => Err(Misfit::Malformed),
        (b'-' | b'0'..=b'9', _) => kind.parse(as_text(raw), format),
        (b'"', _) => kind.parse(string_text(raw, scratch), format),
        (b't', Kind::Boolean) => Ok(Scalar::Bits(1)),
        (b'f', Kind::Boolean) => Ok(Scalar::Bits(0)),
        _ => Err(Misfit::Malformed),
    }
}

/// Appends an accepted value. On an error parts of it may have been appended: truncate the column.
pub(crate) fn append(
    column: &mut Column,
    raw: &[u8],
    format: TimestampFormat,
    scratch: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if raw[0] == b'n' {
        return append_null(column);
    }
    let kind = column.kind;
    match (&mut column.data, raw[0]) {
        (Data::Bytes { .. }, b'"') if kind == Kind::Text => column.push_text(string_text(raw, scratch))?,
        (Data::Bytes { .. }, b'-' | b'0'..=b'9' | b't' | b'f') if kind == Kind::Text => {
            column.push_text(as_text(raw))?
        }
        (Data::Bytes { .. }, b'"') => {
            let mut bytes = Vec::new();
            text::decode_base64(string_text(raw, scratch), &mut bytes)?;
            column.push_binary(&bytes)?;
        }
        (Data::Bytes { .. }, _) => return Err(Misfit::Malformed.into()),
        (Data::List { item, .. }, b'[') => {
            let mut items = Members::new(raw);
            while let Some(raw) = items.next_item() {
                append(item, raw, format, scratch)?;
            }
            column.close_row()?;
        }
        (Data::Map { key, value, .. }, b'{') => {
            for (name, raw) in last_of_each_key(raw) {
                match key.kind {
                    Kind::Text => key.push_text(&name)?,
                    kind => key.push(kind.parse(&name, format)?),
                }
                append(value, raw, format, scratch)?;
            }
            column.close_row()?;
        }
        (Data::Struct(children), b'{') => {
            let members = last_of_each_key(raw);
            for child in children {
                let found = members.iter().find(|(name, _)| name == child.field.name());
                append(child, found.map_or(b"null", |&(_, raw)| raw), format, scratch)?;
            }
            column.close_struct();
        }
        (Data::List { .. } | Data::Map { .. } | Data::Struct(_), _) => return Err(Misfit::Malformed.into()),
        _ => column.push(fixed(kind, raw, format, scratch)?),
    }
    Ok(())
}

pub(crate) fn append_null(column: &mut Column) -> Result<(), Refusal> {
    if !column.field.is_nullable() {
        return Err(Refusal::Null);
    }
    column.push_null();
    Ok(())
}

/// Members of an object in the order in which each key comes first, with its last value.
fn last_of_each_key(object: &[u8]) -> Vec<(String, &[u8])> {
    let mut found: Vec<(String, &[u8])> = Vec::new();
    let mut places = HashMap::<String, usize>::new();
    let mut members = Members::new(object);
    while let Some((name, raw)) = members.next_member() {
        let mut text = Vec::with_capacity(name.len());
        unescape(name, &mut text);
        let name = as_text(&text).to_string();
        match places.entry(name.clone()) {
            Entry::Occupied(place) => found[*place.get()].1 = raw,
            Entry::Vacant(place) => {
                place.insert(found.len());
                found.push((name, raw));
            }
        }
    }
    found
}
