//! Reads JSON strictly: a key that stands twice is an error, with the pointer to it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::ApiError;

/// Deeper documents are refused.
const DEPTH_MAX: usize = 64;

/// The document in `bytes`, or why there is none.
pub fn read(bytes: &[u8]) -> Result<Value, ApiError> {
    let malformed = |detail: String| ApiError::new("malformed_json", detail);
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(malformed("the body begins with a byte order mark".into()));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(malformed(format!("byte {} of the body is not UTF-8", error.valid_up_to())));
    }
    let mut wrong = None;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { pointer: String::new(), depth: 0, wrong: &mut wrong }.deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(match wrong {
            Some(wrong) => wrong,
            None if error.is_eof() && bytes.iter().all(u8::is_ascii_whitespace) => {
                malformed("the body is empty".into())
            }
            None => malformed(format!("line {}, column {}: {}", error.line(), error.column(), reason(&error))),
        }),
    }
}

/// The message without the place, which stands before it already.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_string())
}

struct Strict<'a> {
    pointer: String,
    depth: usize,
    wrong: &'a mut Option<ApiError>,
}

impl Strict<'_> {
    fn below(&mut self, part: &str) -> Strict<'_> {
        let escaped = part.replace('~', "~0").replace('/', "~1");
        Strict { pointer: format!("{}/{escaped}", self.pointer), depth: self.depth + 1, wrong: self.wrong }
    }

    fn deeper<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth < DEPTH_MAX {
            return Ok(());
        }
        let at: String = self.pointer.chars().take(200).collect();
        *self.wrong = Some(ApiError::new("too_deep", format!("{at}: the body has more than {DEPTH_MAX} levels")));
        Err(E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below(&list.len().to_string()))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let below = self.below(&key);
            if map.contains_key(&key) {
                let at: String = below.pointer.chars().take(200).collect();
                *below.wrong = Some(ApiError::new("duplicate_key", format!("{at} stands twice")));
                return Err(serde::de::Error::custom("duplicate key"));
            }
            let value = entries.next_value_seed(below)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        let error = read(text).expect_err("it is wrong");
        format!("{}: {}", error.code(), error.problem().detail)
    }

    #[test]
    fn what_is_not_one_document_is_refused_with_its_place() {
        assert_eq!(read(br#"{"a": [1, {"b": null}], "c": "x"}"#).expect("good")["a"][1]["b"], Value::Null);
        assert_eq!(refused(b"  "), "malformed_json: the body is empty");
        assert_eq!(refused(b"{\"a\":\n 1,"), "malformed_json: line 2, column 3: EOF while parsing a value");
        assert_eq!(refused(b"\xef\xbb\xbf{}"), "malformed_json: the body begins with a byte order mark");
        assert_eq!(refused(b"{\"a\": \"\xff\"}"), "malformed_json: byte 7 of the body is not UTF-8");
        assert!(refused(b"{} {}").starts_with("malformed_json: line 1, column 4"));
        assert!(refused(b"[1e999]").starts_with("malformed_json"), "{}", refused(b"[1e999]"));
        assert!(refused(b"[NaN]").starts_with("malformed_json"));
    }

    #[test]
    fn a_key_stands_once() {
        assert_eq!(refused(br#"{"a": [{"b/c": 1, "b/c": 1}]}"#), "duplicate_key: /a/0/b~1c stands twice");
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(refused(nested(DEPTH_MAX + 1).as_bytes()).starts_with("too_deep: /0/0"));
        assert!(refused(nested(10_000).as_bytes()).starts_with("too_deep"));
        assert!(refused("[".repeat(1_000_000).as_bytes()).starts_with("too_deep"));
    }
}
