//! Dates and times of day in the proleptic Gregorian calendar, UTC, and their SQL texts.

/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01 of a date. Howard Hinnant, "chrono-compatible low-level date algorithms".
pub(crate) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = i64::from(month);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of days since 1970-01-01; the inverse of [`days_from_civil`].
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = (if shifted < 10 { shifted + 3 } else { shifted - 9 }) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 plus months; the day is cut to the length of the month: Jan 31 + 1 month = Feb 28.
pub(crate) fn add_months(days: i64, months: i64) -> Option<i64> {
    let (year, month, day) = civil_from_days(days);
    let total = year.checked_mul(12)?.checked_add(i64::from(month) - 1)?.checked_add(months)?;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u32 + 1);
    (year.abs() < 1_000_000).then(|| days_from_civil(year, month, day.min(days_in_month(year, month))))
}

/// Monday = 1 to Sunday = 7.
pub(crate) fn iso_weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

pub(crate) fn day_of_year(days: i64) -> i64 {
    let (year, _, _) = civil_from_days(days);
    days - days_from_civil(year, 1, 1) + 1
}

/// ISO 8601's year and week: a week belongs to the year of its Thursday.
pub(crate) fn iso_week(days: i64) -> (i64, i64) {
    let thursday = days - iso_weekday(days) + 4;
    let (year, _, _) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

/// Units of the precision in a second.
pub(crate) fn per_second(precision: u8) -> i64 {
    10i64.pow(u32::from(precision))
}

/// Seconds since 1970 and the nanoseconds of the second.
pub(crate) fn split(value: i64, precision: u8) -> (i64, u32) {
    let per_second = per_second(precision);
    (value.div_euclid(per_second), (value.rem_euclid(per_second) * (1_000_000_000 / per_second)) as u32)
}

/// The value in units of the precision; finer digits are cut off. `None` if it is out of range.
pub(crate) fn join(seconds: i64, nanos: u32, precision: u8) -> Option<i64> {
    let per_second = per_second(precision);
    seconds.checked_mul(per_second)?.checked_add(i64::from(nanos) / (1_000_000_000 / per_second))
}

/// A timestamp at another precision, cut off toward the past.
pub(crate) fn rescale(value: i64, from: u8, to: u8) -> Option<i64> {
    match to >= from {
        true => value.checked_mul(per_second(to - from)),
        false => Some(value.div_euclid(per_second(from - to))),
    }
}

fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let end = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    (end >= least).then(|| (text[..end].parse().unwrap_or(0), &text[end..]))
}

/// `yyyy-MM-dd`, also with single digits of month and day; and what follows.
fn date_prefix(text: &str) -> Option<(i64, &str)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (year, rest) = digits(text, 1, 6)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 1, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 1, 2)?;
    let year = if negative { -year } else { year };
    let (month, day) = (month as u32, day as u32);
    ((1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month))
        .then(|| (days_from_civil(year, month, day), rest))
}

/// `HH:mm[:ss[.fraction]]` to nanoseconds of the day.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (nanos, rest) = time_prefix(text.trim())?;
    rest.is_empty().then_some(nanos)
}

fn time_prefix(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = digits(text, 1, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 1, 2)?;
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 1, 2)?,
        None => (0, rest),
    };
    let (nanos, rest) = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let mut nanos = 0;
            for at in 0..9 {
                nanos = nanos * 10 + fraction.as_bytes()[..end].get(at).map_or(0, |byte| i64::from(byte - b'0'));
            }
            (nanos, &fraction[end..])
        }
        None => (0, rest),
    };
    let valid = hour < 24 && minute < 60 && second < 60;
    valid.then(|| ((hour * 3_600 + minute * 60 + second) * 1_000_000_000 + nanos, rest))
}

/// `yyyy-MM-dd[ HH:mm[:ss[.fraction]]]`, with `T` too, and with `Z` or an offset `+HH:mm` if `zone`: seconds since 1970 and nanoseconds.
pub(crate) fn parse_timestamp(text: &str, zone: bool) -> Option<(i64, u32)> {
    let (days, rest) = date_prefix(text.trim())?;
    let start = days.checked_mul(86_400)?;
    if rest.is_empty() {
        return Some((start, 0));
    }
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (nanos, rest) = time_prefix(rest.trim_start())?;
    let offset = match rest.trim_start() {
        "" => 0,
        "Z" | "z" if zone => 0,
        rest if zone => {
            let sign = match rest.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, rest) = digits(&rest[1..], 2, 2)?;
            let (minutes, rest) =
                if rest.is_empty() { (0, rest) } else { digits(rest.strip_prefix(':').unwrap_or(rest), 2, 2)? };
            if !rest.is_empty() || hours > 18 || minutes > 59 {
                return None;
            }
            sign * (hours * 3_600 + minutes * 60)
        }
        _ => return None,
    };
    Some((start + nanos / 1_000_000_000 - offset, (nanos % 1_000_000_000) as u32))
}

fn two(out: &mut String, value: u32) {
    out.push((b'0' + (value / 10 % 10) as u8) as char);
    out.push((b'0' + (value % 10) as u8) as char);
}

/// At least `width` digits.
pub(crate) fn padded(out: &mut String, value: i64, width: usize) {
    use std::fmt::Write;
    if value < 0 {
        out.push('-');
    }
    let _ = write!(out, "{:0width$}", value.unsigned_abs());
}

/// `yyyy-MM-dd`.
pub(crate) fn write_date(out: &mut String, days: i64) {
    let (year, month, day) = civil_from_days(days);
    padded(out, year, 4);
    out.push('-');
    two(out, month);
    out.push('-');
    two(out, day);
}

/// `HH:mm:ss` and as many digits of the fraction as the precision has.
pub(crate) fn write_time(out: &mut String, second_of_day: u32, nanos: u32, precision: u8) {
    two(out, second_of_day / 3_600);
    out.push(':');
    two(out, second_of_day / 60 % 60);
    out.push(':');
    two(out, second_of_day % 60);
    if precision > 0 {
        out.push('.');
        let fraction = nanos / 10u32.pow(9 - u32::from(precision));
        padded(out, i64::from(fraction), usize::from(precision));
    }
}

/// `yyyy-MM-dd HH:mm:ss[.fraction]` of a timestamp of the precision.
pub(crate) fn write_timestamp(out: &mut String, value: i64, precision: u8) {
    let (seconds, nanos) = split(value, precision);
    write_date(out, seconds.div_euclid(86_400));
    out.push(' ');
    write_time(out, seconds.rem_euclid(86_400) as u32, nanos, precision);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dates_and_days_are_inverses_and_agree_with_chrono() {
        use chrono::Datelike;
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::Duration::days(days);
            assert_eq!((i64::from(date.year()), date.month(), date.day()), (year, month, day));
            assert_eq!(
                iso_week(days),
                (i64::from(date.iso_week().year()), i64::from(date.iso_week().week())),
                "{date}"
            );
            assert_eq!(
                (i64::from(date.ordinal()), i64::from(date.weekday().number_from_monday())),
                (day_of_year(days), iso_weekday(days))
            );
        }
    }

    #[test]
    fn texts_become_times() {
        let at = |text: &str| parse_timestamp(text, true);
        assert_eq!(at("1970-01-02 00:00:01.5"), Some((86_401, 500_000_000)));
        assert_eq!(at("1970-01-01T01:00:00+01:00"), Some((0, 0)));
        assert_eq!(at(" 1970-1-1 "), Some((0, 0)));
        assert_eq!(at("1970-01-01 00:00:00.1234567899"), Some((0, 123_456_789)));
        for wrong in
            ["", "1970", "1970-13-01", "1970-02-30", "1970-01-01 25:00:00", "1970-01-01x", "1970-01-01 00:00:00 x", "é"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(parse_timestamp("1970-01-01 00:00:00Z", false), None);
    }

    #[test]
    fn months_are_cut_to_their_length() {
        let date = |text| parse_timestamp(text, false).unwrap().0 / 86_400;
        assert_eq!(add_months(date("2023-01-31"), 1), Some(date("2023-02-28")));
        assert_eq!(add_months(date("2024-02-29"), -12), Some(date("2023-02-28")));
        assert_eq!(add_months(0, i64::MAX), None);
    }
}
