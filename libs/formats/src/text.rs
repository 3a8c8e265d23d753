//! Texts to values and back: the one definition for every text format.
//!
//! Numbers, booleans and times are read after trimming blanks and control characters at both ends (as Java's `trim`).
//! Nothing is rounded or cut silently, with two exceptions that the type asks for: the fraction of a DECIMAL is rounded half up
//! to its scale, and times are truncated (toward the past) to their precision.

use std::io::Write;
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

impl TimestampFormat {
    /// Decimal digits of the epoch unit below a second, if numbers are read.
    fn epoch_digits(self) -> Option<u8> {
        match self {
            TimestampFormat::Sql | TimestampFormat::Iso8601 => None,
            TimestampFormat::EpochSeconds => Some(0),
            TimestampFormat::EpochMillis => Some(3),
            TimestampFormat::EpochMicros => Some(6),
        }
    }
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
            _ => Err(format!(
                "unknown timestamp format {name:?}; use SQL, ISO-8601, epoch-seconds, epoch-millis or epoch-micros"
            )),
        }
    }
}

/// Why a text is not a value of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It does not look like one.
    Malformed,
    /// It looks like one, but the type cannot hold it.
    OutOfRange,
}

/// The text without blanks and control characters at its ends.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

/// An integer within `min..=max`: digits with an optional sign, also with a fraction of zeros or an exponent that leaves it integral.
pub fn parse_int(text: &str, min: i64, max: i64) -> Result<i64, Misfit> {
    let value = match text.parse::<i64>() {
        Ok(value) => value,
        Err(_) => i64::try_from(scaled(trim(text), 0, Rounding::Exact)?).map_err(|_| Misfit::OutOfRange)?,
    };
    if value < min || value > max { Err(Misfit::OutOfRange) } else { Ok(value) }
}

/// A DECIMAL(precision, scale), as the integer `value * 10^scale`.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Misfit> {
    let value = scaled(trim(text), i64::from(scale), Rounding::HalfUp)?;
    match 10u128.checked_pow(u32::from(precision)) {
        Some(limit) if value.unsigned_abs() >= limit => Err(Misfit::OutOfRange),
        _ => Ok(value),
    }
}

/// A finite number, or `NaN`, `Infinity`, `-Infinity` as [`write_f64`] writes them. A finite text beyond the range is no infinity.
pub fn parse_f64(text: &str) -> Result<f64, Misfit> {
    match special_float(trim(text))? {
        Some(value) => Ok(value),
        None => finite(trim(text).parse::<f64>().map_err(|_| Misfit::Malformed)?, f64::is_finite),
    }
}

/// As [`parse_f64`], rounded once to single precision.
pub fn parse_f32(text: &str) -> Result<f32, Misfit> {
    match special_float(trim(text))? {
        Some(value) => Ok(value as f32),
        None => finite(trim(text).parse::<f32>().map_err(|_| Misfit::Malformed)?, f32::is_finite),
    }
}

fn special_float(text: &str) -> Result<Option<f64>, Misfit> {
    match text {
        "NaN" => Ok(Some(f64::NAN)),
        "Infinity" | "+Infinity" => Ok(Some(f64::INFINITY)),
        "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
        // The standard library also takes "inf" and "nan" in any case.
        _ if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => Ok(None),
        _ => Err(Misfit::Malformed),
    }
}

fn finite<T: Copy>(value: T, is_finite: fn(T) -> bool) -> Result<T, Misfit> {
    if is_finite(value) { Ok(value) } else { Err(Misfit::OutOfRange) }
}

/// `true` or `false` in any case.
pub fn parse_bool(text: &str) -> Result<bool, Misfit> {
    let text = trim(text);
    if text.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if text.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err(Misfit::Malformed)
    }
}

/// `yyyy-MM-dd`, years 0001 to 9999, as days since 1970-01-01.
pub fn parse_date(text: &str) -> Result<i32, Misfit> {
    let bytes = trim(text).as_bytes();
    if bytes.len() != 10 { Err(Misfit::Malformed) } else { Ok(date(bytes)? as i32) }
}

/// `HH:mm:ss[.fraction]`, as units of `10^-digits` seconds since midnight.
pub fn parse_time(text: &str, digits: u8) -> Result<i64, Misfit> {
    let (seconds, nanos, rest) = time(trim(text).as_bytes(), true)?;
    if rest.is_empty() { Ok(seconds * 10i64.pow(digits.into()) + cut(nanos, digits)) } else { Err(Misfit::Malformed) }
}

/// A timestamp as units of `10^-digits` seconds since 1970-01-01 00:00:00 UTC.
///
/// `yyyy-MM-dd HH:mm[:ss[.fraction]]` with a blank or `T` between, and optionally `Z` or an offset (`+02:00`, `+0200`, `+02`), which is
/// applied; without one the text is UTC. An epoch format also takes a number of its unit. Years 0001 to 9999.
pub fn parse_timestamp(text: &str, digits: u8, format: TimestampFormat) -> Result<i64, Misfit> {
    let text = trim(text);
    let bytes = text.as_bytes();
    if bytes.len() < 16 || bytes[4] != b'-' || !bytes[..4].iter().all(u8::is_ascii_digit) {
        let Some(unit) = format.epoch_digits() else { return Err(Misfit::Malformed) };
        return parse_epoch(text, unit, digits);
    }
    if !matches!(bytes[10], b' ' | b'T' | b't') {
        return Err(Misfit::Malformed);
    }
    let (seconds, nanos, zone) = time(&bytes[11..], false)?;
    let seconds = date(&bytes[..10])? * 86_400 + seconds - offset_seconds(zone)?;
    timestamp(seconds, nanos, digits)
}

/// The last minute seen in a column of timestamps, as text and value: the next timestamp is probably in the same.
pub(crate) struct Minute {
    text: [u8; 16],
    value: i64,
    /// Units per second; 0 until the first minute is known.
    unit: i64,
    digits: u8,
}

impl Minute {
    /// For timestamps of units of `10^-digits` seconds.
    pub(crate) fn new(digits: u8) -> Minute {
        Minute { text: [0; 16], value: 0, unit: 0, digits }
    }

    /// A plain timestamp (`yyyy-MM-dd HH:mm:ss[.fraction][Z]`, also with `T`) at `start`: its value as [`parse_timestamp`] gives it, and the
    /// position behind it. None if it is anything else, also if it is malformed: the slow path looks closer.
    #[inline]
    pub(crate) fn timestamp(&mut self, bytes: &[u8], start: usize) -> Option<(i64, usize)> {
        let head: &[u8; 16] = bytes.get(start..start + 16)?.try_into().ok()?;
        if *head != self.text || self.unit == 0 {
            self.learn(head)?;
        }
        let [b':', tens, ones] = *bytes.get(start + 16..start + 19)? else { return None };
        if !(b'0'..=b'5').contains(&tens) || !ones.is_ascii_digit() {
            return None;
        }
        let seconds = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
        let (mut position, mut fraction) = (start + 19, 0);
        if bytes.get(position) == Some(&b'.') {
            let first = position + 1;
            position = first;
            let mut place = self.unit;
            while let Some(digit) = bytes.get(position).filter(|byte| byte.is_ascii_digit()) {
                // Digits finer than the unit are cut.
                place /= 10;
                fraction += i64::from(digit - b'0') * place;
                position += 1;
            }
            if !(1..=9).contains(&(position - first)) {
                return None;
            }
        }
        position += usize::from(bytes.get(position) == Some(&b'Z'));
        Some((self.value.checked_add(seconds * self.unit + fraction)?, position))
    }

    #[cold]
    fn learn(&mut self, head: &[u8; 16]) -> Option<()> {
        let (b' ' | b'T', b':') = (head[10], head[13]) else { return None };
        let (days, hour, minute) = (date(&head[..10]).ok()?, digits(&head[11..13]).ok()?, digits(&head[14..]).ok()?);
        if hour > 23 || minute > 59 {
            return None;
        }
        let value = timestamp(days * 86_400 + hour * 3600 + minute * 60, 0, self.digits).ok()?;
        (self.text, self.value, self.unit) = (*head, value, 10i64.pow(self.digits.into()));
        Some(())
    }
}

/// A number of units of `10^-unit` seconds since the epoch.
fn parse_epoch(text: &str, unit: u8, digits: u8) -> Result<i64, Misfit> {
    let value = scaled(text, i64::from(digits) - i64::from(unit), Rounding::Floor)?;
    let value = i64::try_from(value).map_err(|_| Misfit::OutOfRange)?;
    let seconds = value.div_euclid(10i64.pow(digits.into()));
    if in_calendar(seconds) { Ok(value) } else { Err(Misfit::OutOfRange) }
}

/// Seconds and nanoseconds as units of `10^-digits` seconds.
fn timestamp(seconds: i64, nanos: i64, digits: u8) -> Result<i64, Misfit> {
    if !in_calendar(seconds) {
        return Err(Misfit::OutOfRange);
    }
    let whole = seconds.checked_mul(10i64.pow(digits.into()));
    whole.and_then(|whole| whole.checked_add(cut(nanos, digits))).ok_or(Misfit::OutOfRange)
}

const FIRST_SECOND: i64 = -62_135_596_800; // 0001-01-01 00:00:00
const LAST_SECOND: i64 = 253_402_300_799; // 9999-12-31 23:59:59

fn in_calendar(seconds: i64) -> bool {
    (FIRST_SECOND..=LAST_SECOND).contains(&seconds)
}

/// Nanoseconds as units of `10^-digits` seconds, truncated.
fn cut(nanos: i64, digits: u8) -> i64 {
    nanos / 10i64.pow(9 - u32::from(digits))
}

/// Value of a fixed number of digits.
fn digits(bytes: &[u8]) -> Result<i64, Misfit> {
    let mut value = 0;
    for &byte in bytes {
        if !byte.is_ascii_digit() {
            return Err(Misfit::Malformed);
        }
        value = value * 10 + i64::from(byte - b'0');
    }
    Ok(value)
}

/// Days since 1970-01-01 of the ten bytes `yyyy-MM-dd`.
fn date(bytes: &[u8]) -> Result<i64, Misfit> {
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return Err(Misfit::Malformed);
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..10])?);
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return Err(Misfit::Malformed);
    }
    Ok(days_from_civil(year, month, day))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Ibid., `civil_from_days`: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `HH:mm[:ss[.fraction]]` at the front: seconds of the day, nanoseconds, and what follows.
fn time(bytes: &[u8], seconds_required: bool) -> Result<(i64, i64, &[u8]), Misfit> {
    if bytes.len() < 5 || bytes[2] != b':' {
        return Err(Misfit::Malformed);
    }
    let (hour, minute) = (digits(&bytes[..2])?, digits(&bytes[3..5])?);
    let (mut second, mut nanos, mut rest) = (0, 0, &bytes[5..]);
    if rest.first() == Some(&b':') {
        second = digits(rest.get(1..3).ok_or(Misfit::Malformed)?)?;
        rest = &rest[3..];
        if let Some((b'.', fraction)) = rest.split_first() {
            let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&length) {
                return Err(Misfit::Malformed);
            }
            nanos = digits(&fraction[..length])? * 10i64.pow(9 - length as u32);
            rest = &fraction[length..];
        }
    } else if seconds_required {
        return Err(Misfit::Malformed);
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Misfit::Malformed);
    }
    Ok((hour * 3600 + minute * 60 + second, nanos, rest))
}

/// Seconds east of UTC; nothing is UTC.
fn offset_seconds(zone: &[u8]) -> Result<i64, Misfit> {
    let (sign, hours, minutes) = match *zone {
        [] | [b'Z' | b'z'] => return Ok(0),
        [sign, a, b] => (sign, [a, b], *b"00"),
        [sign, a, b, c, d] | [sign, a, b, b':', c, d] => (sign, [a, b], [c, d]),
        _ => return Err(Misfit::Malformed),
    };
    let (hours, minutes) = (digits(&hours)?, digits(&minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    match sign {
        _ if minutes > 59 || seconds > 18 * 3600 => Err(Misfit::Malformed),
        b'+' => Ok(seconds),
        b'-' => Ok(-seconds),
        _ => Err(Misfit::Malformed),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    /// Digits that would be lost make the text malformed.
    Exact,
    /// Away from zero from one half on.
    HalfUp,
    /// Toward minus infinity.
    Floor,
}

/// `number * 10^scale` of a text `[+-]digits[.digits][e[+-]digits]` (digits on at least one side of the point), exactly.
fn scaled(text: &str, scale: i64, rounding: Rounding) -> Result<i128, Misfit> {
    let (negative, unsigned) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Misfit::Malformed);
    }
    // Digits before the point of the result; negative: so many zeros follow the point first.
    let kept = whole.len() as i64 + exponent.saturating_add(scale);
    let (mut value, mut next_digit, mut lost) = (0u128, 0, false);
    for (position, &byte) in whole.iter().chain(fraction).enumerate() {
        let digit = u128::from(byte - b'0');
        if (position as i64) < kept {
            value = value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(Misfit::OutOfRange)?;
        } else {
            if position as i64 == kept {
                next_digit = digit;
            }
            lost |= digit != 0;
        }
    }
    let zeros = kept - (whole.len() + fraction.len()) as i64;
    if zeros > 0 && value != 0 {
        let power = u32::try_from(zeros).ok().and_then(|zeros| 10u128.checked_pow(zeros)).ok_or(Misfit::OutOfRange)?;
        value = value.checked_mul(power).ok_or(Misfit::OutOfRange)?;
    }
    let away = match rounding {
        Rounding::Exact if lost => return Err(Misfit::Malformed),
        Rounding::Exact => false,
        Rounding::HalfUp => next_digit >= 5,
        Rounding::Floor => negative && lost,
    };
    let value = i128::try_from(value + u128::from(away)).map_err(|_| Misfit::OutOfRange)?;
    Ok(if negative { -value } else { value })
}

/// Digits with an optional sign; saturates, since any large one is out of every range.
fn exponent(bytes: &[u8]) -> Result<i64, Misfit> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Misfit::Malformed);
    }
    let value = digits.iter().fold(0i64, |value, byte| (value * 10 + i64::from(byte - b'0')).min(1 << 40));
    Ok(if negative { -value } else { value })
}

/// Standard base64 (RFC 4648), with or without padding; the unused bits of the last character must be zero.
pub fn decode_base64(text: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    let body = &bytes[..bytes.len() - padding];
    if body.len() % 4 == 1 || (padding > 0 && !bytes.len().is_multiple_of(4)) {
        return Err(Misfit::Malformed);
    }
    let begin = out.len();
    let (mut bits, mut count) = (0u32, 0);
    for &byte in body {
        let Some(value) = BASE64.iter().position(|&symbol| symbol == byte) else {
            out.truncate(begin);
            return Err(Misfit::Malformed);
        };
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    if bits != 0 {
        out.truncate(begin);
        return Err(Misfit::Malformed);
    }
    Ok(())
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let symbol = BASE64[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { symbol } else { b'=' });
        }
    }
}

/// Decimal digits of an integer.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&buffer[at..]);
}

/// The shortest decimal text that reads back as the same number; `NaN`, `Infinity`, `-Infinity`.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    match value {
        _ if value.is_finite() => write!(out, "{value:?}").expect("writing to memory does not fail"),
        _ => out.extend_from_slice(special_name(value)),
    }
}

/// As [`write_f64`].
pub fn write_f32(out: &mut Vec<u8>, value: f32) {
    match value {
        _ if value.is_finite() => write!(out, "{value:?}").expect("writing to memory does not fail"),
        _ => out.extend_from_slice(special_name(value.into())),
    }
}

fn special_name(value: f64) -> &'static [u8] {
    match value {
        _ if value.is_nan() => b"NaN",
        _ if value > 0.0 => b"Infinity",
        _ => b"-Infinity",
    }
}

/// All `scale` fraction digits of a decimal given as `value * 10^scale`.
pub fn write_decimal(out: &mut Vec<u8>, value: i128, scale: i8) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    if scale <= 0 {
        out.extend_from_slice(digits.as_bytes());
        if value != 0 {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    }
    let scale = scale as usize;
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits.as_bytes()[..whole] });
    out.push(b'.');
    out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(&digits.as_bytes()[whole..]);
}

/// `yyyy-MM-dd`. Out of range outside the years 0001 to 9999, since such a text could not be read back.
pub fn write_date(out: &mut Vec<u8>, days: i64) -> Result<(), Misfit> {
    if !in_calendar(days.saturating_mul(86_400)) {
        return Err(Misfit::OutOfRange);
    }
    let (year, month, day) = civil_from_days(days);
    let pairs = [year / 100, year % 100, month, day].map(two_digits);
    let [[a, b], [c, d], [e, f], [g, h]] = pairs;
    out.extend_from_slice(&[a, b, c, d, b'-', e, f, b'-', g, h]);
    Ok(())
}

fn two_digits(value: i64) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

/// `HH:mm:ss[.fraction]` of units of `10^-digits` seconds; no trailing zeros in the fraction.
pub fn write_time(out: &mut Vec<u8>, value: i64, digits: u8) -> Result<(), Misfit> {
    let unit = 10i64.pow(digits.into());
    let (seconds, mut fraction) = (value.div_euclid(unit), value.rem_euclid(unit));
    if !(0..86_400).contains(&seconds) {
        return Err(Misfit::OutOfRange);
    }
    let [[a, b], [c, d], [e, f]] = [seconds / 3600, seconds / 60 % 60, seconds % 60].map(two_digits);
    out.extend_from_slice(&[a, b, b':', c, d, b':', e, f]);
    if fraction != 0 {
        out.push(b'.');
        let mut place = unit / 10;
        while fraction != 0 {
            out.push(b'0' + (fraction / place) as u8);
            fraction %= place;
            place /= 10;
        }
    }
    Ok(())
}

/// A timestamp of units of `10^-digits` seconds in the given format; `zoned` texts end with `Z`.
/// An epoch format writes a number, with a fraction if the type is finer than the unit.
pub fn write_timestamp(
    out: &mut Vec<u8>,
    value: i64,
    digits: u8,
    zoned: bool,
    format: TimestampFormat,
) -> Result<(), Misfit> {
    if let Some(unit) = format.epoch_digits() {
        if unit >= digits {
            let factor = 10i64.pow(u32::from(unit - digits));
            write_i64(out, value.checked_mul(factor).ok_or(Misfit::OutOfRange)?);
        } else {
            let places = digits - unit;
            let whole = value % 10i64.pow(places.into()) == 0;
            if whole {
                write_i64(out, value / 10i64.pow(places.into()))
            } else {
                write_decimal(out, value.into(), places as i8)
            }
        }
        return Ok(());
    }
    let day = 86_400 * 10i64.pow(digits.into());
    write_date(out, value.div_euclid(day))?;
    out.push(if format == TimestampFormat::Iso8601 { b'T' } else { b' ' });
    write_time(out, value.rem_euclid(day), digits)?;
    if zoned {
        out.push(b'Z');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Misfit::{Malformed, OutOfRange};
    use super::*;

    #[test]
    fn integers() {
        let int = |text| parse_int(text, i64::MIN, i64::MAX);
        for (text, value) in [
            ("12", Ok(12)),
            (" 12\t", Ok(12)),
            ("+7", Ok(7)),
            ("-0", Ok(0)),
            ("007", Ok(7)),
            ("1.0", Ok(1)),
            ("1e3", Ok(1000)),
            ("120e-1", Ok(12)),
            ("0.0012e4", Ok(12)),
            ("9007199254740993.0", Ok(9_007_199_254_740_993)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(OutOfRange)),
            ("1e19", Err(OutOfRange)),
            ("1e999999999999999999999", Err(OutOfRange)),
            ("0e999999999999999999999", Ok(0)),
            ("1e-999999999999999999999", Err(Malformed)),
            ("1.9", Err(Malformed)),
            ("1e-1", Err(Malformed)),
            ("", Err(Malformed)),
            (".", Err(Malformed)),
            ("-", Err(Malformed)),
            ("1e", Err(Malformed)),
            ("1_000", Err(Malformed)),
            ("0x10", Err(Malformed)),
            ("٣", Err(Malformed)),
        ] {
            assert_eq!(int(text), value, "{text}");
        }
        assert_eq!(parse_int("128", -128, 127), Err(OutOfRange));
        assert_eq!(parse_int("-128", -128, 127), Ok(-128));
    }

    #[test]
    fn decimals_round_half_up_and_never_overflow_silently() {
        for (text, value) in [
            ("1.25", Ok(125)),
            ("1.2", Ok(120)),
            ("-1.255", Ok(-126)),
            ("1.2549", Ok(125)),
            ("0.005", Ok(1)),
            ("0.0049", Ok(0)),
            ("5e-4", Ok(0)),
            ("12e1", Ok(12000)),
            ("999.99", Ok(99999)),
            ("999.995", Err(OutOfRange)),
            ("1000", Err(OutOfRange)),
            ("NaN", Err(Malformed)),
            ("1e40", Err(OutOfRange)),
        ] {
            assert_eq!(parse_decimal(text, 5, 2), value, "{text}");
        }
        let widest = "9".repeat(38);
        assert_eq!(parse_decimal(&widest, 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(parse_decimal(&format!("{widest}9"), 38, 0), Err(OutOfRange));
        assert_eq!(parse_decimal(&format!("0.{}", "3".repeat(500)), 10, 2), Ok(33));
        for (value, scale, text) in [
            (125, 2, "1.25"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (7, 0, "7"),
            (-7, -2, "-700"),
            (0, -2, "0"),
            (i128::MIN + 1, 38, "-1.70141183460469231731687303715884105727"),
        ] {
            let mut out = Vec::new();
            write_decimal(&mut out, value, scale);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn floats() {
        assert_eq!(parse_f64(" -1.5e3 "), Ok(-1500.0));
        assert_eq!(parse_f64("1e400"), Err(OutOfRange));
        assert_eq!(parse_f32("1e39"), Err(OutOfRange));
        assert_eq!(parse_f64("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(parse_f32("NaN").unwrap().is_nan());
        for text in ["inf", "nan", "infinity", "", "1f", "0x1p3", "e5", "--1"] {
            assert_eq!(parse_f64(text), Err(Malformed), "{text}");
        }
        for value in [0.1, -0.0, 1e16, 1e-7, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, 1.0] {
            let mut out = Vec::new();
            write_f64(&mut out, value);
            let back = parse_f64(std::str::from_utf8(&out).unwrap()).unwrap();
            assert!(back.to_bits() == value.to_bits() || value.is_nan(), "{value}");
        }
    }

    #[test]
    fn dates_agree_with_chrono_style_round_trips() {
        assert_eq!(parse_date("1970-01-01"), Ok(0));
        assert_eq!(parse_date("2000-02-29"), Ok(11_016));
        for text in [
            "1900-02-29",
            "2001-02-29",
            "2001-04-31",
            "2001-13-01",
            "2001-00-01",
            "2001-01-00",
            "0000-01-01",
            "2001-1-1",
            "01-01-2001",
            "",
            "2001-01-01 ",
        ] {
            let expected = if text.ends_with(' ') { Ok(11_323) } else { Err(Malformed) };
            assert_eq!(parse_date(text), expected, "{text}");
        }
        let (first, last) = (parse_date("0001-01-01").unwrap(), parse_date("9999-12-31").unwrap());
        let mut out = Vec::new();
        for days in first..=last {
            out.clear();
            write_date(&mut out, days.into()).unwrap();
            assert_eq!(parse_date(std::str::from_utf8(&out).unwrap()), Ok(days));
        }
        assert_eq!(write_date(&mut out, i64::from(last) + 1), Err(OutOfRange));
        assert_eq!(write_date(&mut out, i64::from(first) - 1), Err(OutOfRange));
    }

    #[test]
    fn times_of_day() {
        assert_eq!(parse_time("23:59:59.123456789", 6), Ok(86_399_123_456));
        assert_eq!(parse_time("00:00:00", 6), Ok(0));
        for text in ["24:00:00", "12:60:00", "12:00:60", "12:00", "12:00:00.", "12:00:00Z", "1:00:00", ""] {
            assert_eq!(parse_time(text, 6), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn timestamps() {
        let sql = |text| parse_timestamp(text, 3, TimestampFormat::Sql);
        for (text, millis) in [
            ("1970-01-01 00:00:00", Ok(0)),
            ("2020-01-31 23:59:59.123", Ok(1_580_515_199_123)),
            ("2020-01-31T23:59:59.123456789", Ok(1_580_515_199_123)),
            ("2020-01-31T23:59:59.123Z", Ok(1_580_515_199_123)),
            ("2020-01-31 23:59:59.1Z", Ok(1_580_515_199_100)),
            ("2020-02-01T01:59:59.123+02:00", Ok(1_580_515_199_123)),
            ("2020-02-01T01:59:59.123+0200", Ok(1_580_515_199_123)),
            ("2020-01-31T18:29:59.123-05:30", Ok(1_580_515_199_123)),
            ("2020-01-31T23:59", Ok(1_580_515_140_000)),
            ("1969-12-31 23:59:59.9999", Ok(-1)),
            ("0001-01-01 00:00:00", Ok(-62_135_596_800_000)),
            ("9999-12-31 23:59:59.999", Ok(253_402_300_799_999)),
            ("9999-12-31T23:59:59-01:00", Err(OutOfRange)),
            ("2020-02-30 00:00:00", Err(Malformed)),
            ("2020-01-01 24:00:00", Err(Malformed)),
            ("2020-01-01 00:00:60", Err(Malformed)),
            ("2020-01-01", Err(Malformed)),
            ("2020-01-01_00:00:00", Err(Malformed)),
            ("2020-01-01 00:00:00.", Err(Malformed)),
            ("2020-01-01 00:00:00.1234567890", Err(Malformed)),
            ("2020-01-01 00:00:00 Z", Err(Malformed)),
            ("2020-01-01 00:00:00+19:00", Err(Malformed)),
            ("2020-01-01 00:00:00*02:00", Err(Malformed)),
            ("2020-01-01 00:00:00Europe/Berlin", Err(Malformed)),
            ("", Err(Malformed)),
            ("1580515199123", Err(Malformed)),
            ("2020-01-01 00é00:00", Err(Malformed)),
        ] {
            assert_eq!(sql(text), millis, "{text}");
        }
        assert_eq!(parse_timestamp("2262-04-12 00:00:00", 9, TimestampFormat::Sql), Err(OutOfRange));
        assert_eq!(parse_timestamp("1969-12-31 23:59:59.5", 0, TimestampFormat::Sql), Ok(-1));
    }

    #[test]
    fn the_remembered_minute_changes_nothing() {
        let seed = "2020-01-31 23:59:59.123Z";
        let mut state = 1u64;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit
        };
        for digits in [0, 3, 6, 9] {
            let (mut minute, mut taken) = (Minute::new(digits), 0);
            for _ in 0..20_000 {
                let mut text = seed.as_bytes()[..seed.len() - below(6)].to_vec();
                for _ in 0..below(3) {
                    let at = below(text.len());
                    text[at] = b"0123456789-:.T Z"[below(16)];
                }
                let text = String::from_utf8(text).unwrap();
                if let Some((value, end)) = minute.timestamp(text.as_bytes(), 0)
                    && end == text.len()
                {
                    assert_eq!(parse_timestamp(&text, digits, TimestampFormat::Sql), Ok(value), "{text}");
                    taken += 1;
                }
            }
            assert!(taken > 5_000);
        }
        assert_eq!(Minute::new(3).timestamp(b"2020-01-31 23:59:59", 0), Some((1_580_515_199_000, 19)));
    }

    #[test]
    fn epoch_numbers_need_their_format() {
        use TimestampFormat::*;
        for (text, digits, format, value) in [
            ("1580515199", 3, EpochSeconds, Ok(1_580_515_199_000)),
            ("1580515199.1239", 3, EpochSeconds, Ok(1_580_515_199_123)),
            ("-0.5", 0, EpochSeconds, Ok(-1)),
            ("1580515199123", 3, EpochMillis, Ok(1_580_515_199_123)),
            ("1580515199123", 0, EpochMillis, Ok(1_580_515_199)),
            ("1580515199123456", 6, EpochMicros, Ok(1_580_515_199_123_456)),
            ("1e3", 3, EpochMillis, Ok(1000)),
            ("2020-01-31 23:59:59.123", 3, EpochMillis, Ok(1_580_515_199_123)),
            ("9223372036854775807", 3, EpochMillis, Err(OutOfRange)),
            ("soon", 3, EpochMillis, Err(Malformed)),
        ] {
            assert_eq!(parse_timestamp(text, digits, format), value, "{text}");
        }
    }

    #[test]
    fn timestamps_are_written_so_that_they_read_back() {
        use TimestampFormat::*;
        let write = |value, digits, zoned, format| {
            let mut out = Vec::new();
            write_timestamp(&mut out, value, digits, zoned, format).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(write(1_580_515_199_120, 3, false, Sql), "2020-01-31 23:59:59.12");
        assert_eq!(write(1_580_515_199_000, 3, true, Sql), "2020-01-31 23:59:59Z");
        assert_eq!(write(-1, 9, true, Iso8601), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(write(1_580_515_199_120, 3, false, EpochSeconds), "1580515199.120");
        assert_eq!(write(1_580_515_199_000, 3, false, EpochSeconds), "1580515199");
        assert_eq!(write(1_580_515_199, 0, false, EpochMillis), "1580515199000");
        for digits in [0, 3, 6, 9] {
            for format in [Sql, Iso8601, EpochSeconds, EpochMillis, EpochMicros] {
                for value in [0, 1, -1, 123_456_789, -987_654_321, 1_580_515_199] {
                    assert_eq!(
                        parse_timestamp(&write(value, digits, true, format), digits, format),
                        Ok(value),
                        "{value} {digits} {format:?}"
                    );
                }
            }
        }
        assert_eq!(write_timestamp(&mut Vec::new(), i64::MAX, 3, false, Sql), Err(OutOfRange));
    }

    #[test]
    fn base64_reads_what_it_writes() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (&[255, 254, 253, 0], "//79AA==")]
        {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            write_base64(&mut out, bytes);
            assert_eq!(std::str::from_utf8(&out).unwrap(), text);
            decode_base64(text, &mut back).unwrap();
            decode_base64(text.trim_end_matches('='), &mut back).unwrap();
            assert_eq!(back, [bytes, bytes].concat());
        }
        for text in ["Z", "Zg=", "Zg===", "Zh==", "Zm9v=", "Zm 9v", "====", "Z-_v"] {
            let mut out = vec![1];
            assert_eq!(decode_base64(text, &mut out), Err(Malformed), "{text}");
            assert_eq!(out, [1]);
        }
    }
}
