//! Texts to values and back: the one definition for every text format.

use std::str::FromStr;

/// How timestamps are written as text, and which numbers are read as timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampFormat {
    /// `2020-01-31 23:59:59.123`; with a local time zone `2020-01-31 23:59:59.123Z`. Trailing zeros of the fraction are not written.
    #[default]
    Sql,
    /// `2020-01-31T23:59:59.123`.
    Iso8601,
    EpochSeconds,
    EpochMillis,
    EpochMicros,
}

impl FromStr for TimestampFormat {
    type Err = String;

    /// The values of the option `json.timestamp-format.standard`.
    fn from_str(name: &str) -> Result<TimestampFormat, String> {
        match name.to_ascii_lowercase().as_str() {
            "sql" => Ok(TimestampFormat::Sql),
            "iso-8601" => Ok(TimestampFormat::Iso8601),
            "epoch-seconds" => Ok(TimestampFormat::EpochSeconds),
            "epoch-millis" => Ok(TimestampFormat::EpochMillis),
            "epoch-micros" => Ok(TimestampFormat::EpochMicros),
            _ => Err(format!("unknown timestamp format {name:?}; use SQL, ISO-8601, epoch-seconds, epoch-millis or epoch-micros")),
        }
    }
}
