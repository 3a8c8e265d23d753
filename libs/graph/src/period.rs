//! Lengths of time as text: `"5s"`, `"10 min"`, `"1h30m"`, `"-2h"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole microseconds; may be negative (window offsets).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    pub us: i64,
}

impl Period {
    /// No time.
    pub const ZERO: Period = Period { us: 0 };

    /// Of microseconds.
    pub const fn from_us(us: i64) -> Period {
        Period { us }
    }

    /// Of seconds; 292,000 years are the most.
    pub const fn from_secs(secs: i64) -> Period {
        Period { us: secs * 1_000_000 }
    }

    /// Of milliseconds; 292,000 years are the most.
    pub const fn from_millis(millis: i64) -> Period {
        Period { us: millis * 1_000 }
    }

    /// As a `Duration`; a negative period is zero.
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.us.max(0) as u64)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.us < 0 { "-" } else { "" };
        let text = humantime::format_duration(Duration::from_micros(self.us.unsigned_abs())).to_string();
        write!(f, "{sign}{}", text.replace(' ', ""))
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, rest) = match text.trim().strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.trim()),
        };
        if rest == "0" {
            return Ok(Period::ZERO);
        }
        let duration = humantime::parse_duration(rest).map_err(|error| {
            format!("cannot read {text:?} as a length of time: {error}; write 500ms, 10s, 5min or 1h30m")
        })?;
        if !duration.subsec_nanos().is_multiple_of(1_000) {
            return Err(format!("{text:?} is finer than a microsecond"));
        }
        let us = i64::try_from(duration.as_micros()).ok().filter(|us| *us < i64::MAX / 4);
        us.map(|us| Period { us: sign * us }).ok_or_else(|| format!("{text:?} is too long"))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A length of time: numbers with the units us, ms, s, min, h, day, week",
            "examples": ["500ms", "10s", "1h30m"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_print_as_they_parse() {
        for text in ["500ms", "10s", "1h30m", "-2h", "0s"] {
            assert_eq!(text.parse::<Period>().map(|p| p.to_string()), Ok(text.to_string()));
        }
        assert_eq!("10 min".parse(), Ok(Period::from_secs(600)));
        assert!("10".parse::<Period>().is_err());
        assert!("1000000000 years".parse::<Period>().is_err());
    }
}
