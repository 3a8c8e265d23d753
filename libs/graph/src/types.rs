//! SQL data types, as written in graphs and in `CREATE TABLE`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The type of a column. In JSON it is its SQL text: `"BIGINT"`, `"DECIMAL(10, 2)"`, `"TIMESTAMP(3)"`, `"ROW<a BIGINT, b STRING>"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Float,
    Double,
    /// Precision 1 to 38, scale 0 to precision.
    Decimal(u8, u8),
    String,
    Bytes,
    Date,
    Time,
    /// No zone; the precision is the number of fractional digits: 0, 3, 6 or 9.
    Timestamp(u8),
    /// An instant, shown in UTC; precision as for `Timestamp`.
    TimestampLtz(u8),
    Array(Box<DataType>),
    Map(Box<DataType>, Box<DataType>),
    Row(Vec<(String, DataType)>),
}

impl DataType {
    /// The words that types begin with, without their synonyms.
    pub const NAMES: &[&str] = &[
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL",
        "STRING",
        "BYTES",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP_LTZ",
        "ARRAY",
        "MAP",
        "ROW",
    ];

    /// The unit of a timestamp's declared precision in microseconds, where it can be a time attribute: precision 0, 3 and 6.
    pub fn time_unit_us(&self) -> Option<i64> {
        match self {
            DataType::Timestamp(0) | DataType::TimestampLtz(0) => Some(1_000_000),
            DataType::Timestamp(3) | DataType::TimestampLtz(3) => Some(1_000),
            DataType::Timestamp(6) | DataType::TimestampLtz(6) => Some(1),
            _ => None,
        }
    }

    /// With or without a time zone.
    pub fn is_timestamp(&self) -> bool {
        matches!(self, DataType::Timestamp(_) | DataType::TimestampLtz(_))
    }

    /// TINYINT to BIGINT.
    pub fn is_integer(&self) -> bool {
        matches!(self, DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt)
    }

    /// Integers, FLOAT, DOUBLE and DECIMAL.
    pub fn is_numeric(&self) -> bool {
        self.is_integer() || matches!(self, DataType::Float | DataType::Double | DataType::Decimal(..))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Boolean => f.write_str("BOOLEAN"),
            DataType::TinyInt => f.write_str("TINYINT"),
            DataType::SmallInt => f.write_str("SMALLINT"),
            DataType::Int => f.write_str("INT"),
            DataType::BigInt => f.write_str("BIGINT"),
            DataType::Float => f.write_str("FLOAT"),
            DataType::Double => f.write_str("DOUBLE"),
            DataType::Decimal(precision, scale) => write!(f, "DECIMAL({precision}, {scale})"),
            DataType::String => f.write_str("STRING"),
            DataType::Bytes => f.write_str("BYTES"),
            DataType::Date => f.write_str("DATE"),
            DataType::Time => f.write_str("TIME"),
            DataType::Timestamp(precision) => write!(f, "TIMESTAMP({precision})"),
            DataType::TimestampLtz(precision) => write!(f, "TIMESTAMP_LTZ({precision})"),
            DataType::Array(item) => write!(f, "ARRAY<{item}>"),
            DataType::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            DataType::Row(fields) => {
                f.write_str("ROW<")?;
                for (at, (name, data_type)) in fields.iter().enumerate() {
                    write!(f, "{}{} {data_type}", if at > 0 { ", " } else { "" }, quoted(name))?;
                }
                f.write_str(">")
            }
        }
    }
}

/// A name as it stands in SQL text: bare when it is a plain lower-case word, else in backquotes.
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_string() } else { format!("`{}`", name.replace('`', "``")) }
}

/// Why a type's text was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("cannot read the type {text:?}: {reason}")]
pub struct TypeError {
    pub text: String,
    pub reason: String,
    /// The word where a type's name was expected, if it is none.
    pub unknown: Option<String>,
}

impl FromStr for DataType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let mut reader = Reader { rest: text, depth: 0, unknown: None };
        let result = reader.data_type().and_then(|data_type| match reader.rest.trim() {
            "" => Ok(data_type),
            rest => Err(format!("unexpected {rest:?} after it")),
        });
        result.map_err(|reason| TypeError { text: text.to_string(), reason, unknown: reader.unknown })
    }
}

/// Recursive descent over a type's text; the nesting is limited, so that no text can exhaust the stack.
struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    unknown: Option<String>,
}

const DEPTH_MAX: usize = 32;

impl Reader<'_> {
    fn data_type(&mut self) -> Result<DataType, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("types nest at most {DEPTH_MAX} deep"));
        }
        let word = self.name()?.to_uppercase();
        let data_type = match word.as_str() {
            "BOOLEAN" => DataType::Boolean,
            "TINYINT" => DataType::TinyInt,
            "SMALLINT" => DataType::SmallInt,
            "INT" | "INTEGER" => DataType::Int,
            "BIGINT" => DataType::BigInt,
            "FLOAT" | "REAL" => DataType::Float,
            "DOUBLE" => {
                self.keyword("PRECISION");
                DataType::Double
            }
            "DECIMAL" | "NUMERIC" | "DEC" => match self.numbers()?.as_slice() {
                [] => DataType::Decimal(10, 0),
                [precision] => decimal(*precision, 0)?,
                [precision, scale] => decimal(*precision, *scale)?,
                _ => return Err("DECIMAL takes a precision and a scale".into()),
            },
            "STRING" | "VARCHAR" | "TEXT" | "CHAR" => match self.numbers()?.as_slice() {
                [] | [2_147_483_647] => DataType::String,
                _ => return Err("lengths are not supported; write STRING".into()),
            },
            "BYTES" | "VARBINARY" | "BINARY" => DataType::Bytes,
            "DATE" => DataType::Date,
            "TIME" => {
                self.numbers()?;
                DataType::Time
            }
            "TIMESTAMP" => {
                let precision = self.precision()?;
                if self.keyword("WITHOUT") {
                    self.expect_words(&["TIME", "ZONE"])?;
                    DataType::Timestamp(precision)
                } else if self.keyword("WITH") {
                    self.expect_words(&["LOCAL", "TIME", "ZONE"])
                        .map_err(|_| "TIMESTAMP WITH TIME ZONE is not supported; write TIMESTAMP_LTZ(3)".to_string())?;
                    DataType::TimestampLtz(precision)
                } else {
                    DataType::Timestamp(precision)
                }
            }
            "TIMESTAMP_LTZ" => DataType::TimestampLtz(self.precision()?),
            "ARRAY" => {
                self.expect('<')?;
                let item = self.data_type()?;
                self.expect('>')?;
                DataType::Array(Box::new(item))
            }
            "MAP" => {
                self.expect('<')?;
                let key = self.data_type()?;
                self.expect(',')?;
                let value = self.data_type()?;
                self.expect('>')?;
                DataType::Map(Box::new(key), Box::new(value))
            }
            "ROW" => {
                let close = if self.take('<') {
                    '>'
                } else {
                    self.expect('(').map_err(|_| "ROW needs fields: ROW<name TYPE, ...>".to_string())?;
                    ')'
                };
                let mut fields = Vec::new();
                loop {
                    let name = self.name()?;
                    fields.push((name, self.data_type()?));
                    if !self.take(',') {
                        break;
                    }
                }
                self.expect(close)?;
                DataType::Row(fields)
            }
            other => {
                self.unknown = Some(other.to_string());
                return Err(format!("there is no type {other}"));
            }
        };
        self.depth -= 1;
        if self.depth > 0 && self.keyword("NOT") {
            return Err("what stands inside of a ROW, ARRAY or MAP can always be NULL; remove NOT NULL there".into());
        }
        Ok(data_type)
    }

    fn precision(&mut self) -> Result<u8, String> {
        match self.numbers()?.as_slice() {
            [] => Ok(6),
            [precision @ (0 | 3 | 6 | 9)] => Ok(*precision as u8),
            [other] => Err(format!("a timestamp's precision is 0, 3, 6 or 9, not {other}")),
            _ => Err("a timestamp takes one precision".into()),
        }
    }

    fn numbers(&mut self) -> Result<Vec<u32>, String> {
        let mut numbers = Vec::new();
        if self.take('(') {
            loop {
                let digits = self.rest.trim_start();
                let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                numbers.push(digits[..end].parse().map_err(|_| "expected a number in parentheses".to_string())?);
                self.rest = &digits[end..];
                if !self.take(',') {
                    break;
                }
            }
            self.expect(')')?;
        }
        Ok(numbers)
    }

    fn name(&mut self) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        if let Some(inner) = self.rest.strip_prefix('`') {
            let end = inner.find('`').ok_or("a backquoted name has no end")?;
            let name = inner[..end].to_string();
            self.rest = &inner[end + 1..];
            return Ok(name);
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(format!("expected a name at {:?}", self.rest));
        }
        let name = self.rest[..end].to_string();
        self.rest = &self.rest[end..];
        Ok(name)
    }

    fn keyword(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if found {
            self.rest = &rest[word.len()..];
        }
        found
    }

    fn expect_words(&mut self, words: &[&str]) -> Result<(), String> {
        match words.iter().all(|word| self.keyword(word)) {
            true => Ok(()),
            false => Err(format!("expected {}", words.join(" "))),
        }
    }

    fn take(&mut self, mark: char) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, mark: char) -> Result<(), String> {
        if self.take(mark) { Ok(()) } else { Err(format!("expected {mark:?} at {:?}", self.rest)) }
    }
}

fn decimal(precision: u32, scale: u32) -> Result<DataType, String> {
    match precision {
        1..=38 if scale <= precision => Ok(DataType::Decimal(precision as u8, scale as u8)),
        1..=38 => Err(format!("the scale {scale} is larger than the precision {precision}")),
        _ => Err(format!("a decimal's precision is 1 to 38, not {precision}")),
    }
}

impl Serialize for DataType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for DataType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DataType".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A SQL type: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, BYTES, DATE, TIME, \
                TIMESTAMP(0|3|6|9), TIMESTAMP_LTZ(0|3|6|9), ARRAY<t>, MAP<k, v>, ROW<name t, ...>",
            "examples": ["BIGINT", "DECIMAL(10, 2)", "TIMESTAMP(3)", "ROW<a BIGINT, b STRING>"]
        })
    }
}

/// A column of an edge or a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Whether the column may hold NULL. Default: true.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub nullable: bool,
}

impl Column {
    pub fn new(name: impl Into<String>, data_type: DataType, nullable: bool) -> Column {
        Column { name: name.into(), data_type, nullable }
    }
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn is_true(value: &bool) -> bool {
    *value
}

/// The columns of an edge, in order. Names are unique and compared exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Schema {
    pub columns: Vec<Column>,
}

impl Schema {
    /// Names are not checked here.
    pub fn new(columns: Vec<Column>) -> Schema {
        Schema { columns }
    }

    /// The position of the column with exactly this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The column with exactly this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// In the order of the columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, column) in self.columns.iter().enumerate() {
            let (comma, null) = (if at > 0 { ", " } else { "" }, if column.nullable { "" } else { " NOT NULL" });
            write!(f, "{comma}{} {}{null}", quoted(&column.name), column.data_type)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_print_as_they_parse() {
        for text in [
            "BOOLEAN",
            "BIGINT",
            "DECIMAL(10, 2)",
            "TIMESTAMP(3)",
            "TIMESTAMP_LTZ(6)",
            "ARRAY<MAP<STRING, INT>>",
            "ROW<a BIGINT, `b c` ROW<x DOUBLE>>",
        ] {
            assert_eq!(text.parse::<DataType>().map(|t| t.to_string()), Ok(text.to_string()));
        }
        assert_eq!("timestamp(3) with local time zone".parse(), Ok(DataType::TimestampLtz(3)));
        assert_eq!("row(a int)".parse(), Ok(DataType::Row(vec![("a".into(), DataType::Int)])));
    }

    #[test]
    fn wrong_types_say_why() {
        for (text, reason) in [
            ("BIGNT", "there is no type BIGNT"),
            ("TIMESTAMP(4)", "precision is 0, 3, 6 or 9"),
            ("DECIMAL(40, 2)", "precision is 1 to 38"),
            ("VARCHAR(20)", "write STRING"),
            ("INT INT", "unexpected"),
            ("", "expected a name"),
        ] {
            let error = text.parse::<DataType>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!("ARRAY<".repeat(10_000).parse::<DataType>().is_err());
    }
}
