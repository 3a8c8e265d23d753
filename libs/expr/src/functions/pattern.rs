//! Patterns of dates and times as in Java's DateTimeFormatter, English, UTC: those that DATE_FORMAT and TO_TIMESTAMP take.

use crate::calendar;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// At least this many digits; 2 means the last two digits, of 2000 to 2099 when read.
    Year(usize),
    /// 1, 2: digits; 3: `Jan`; 4: `January`.
    Month(usize),
    Day(usize),
    DayOfYear(usize),
    /// 1 to 3: `Mon`; 4: `Monday`.
    Weekday(usize),
    Hour24(usize),
    Hour12(usize),
    Minute(usize),
    Second(usize),
    /// Digits after the point.
    Fraction(usize),
    AmPm,
    /// `Z` for UTC when written, `Z` or an offset when read.
    Zone,
}

/// A pattern, read once and used for every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pieces: Vec<Piece>,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Pattern {
    /// Reads a pattern; says which letter is not known.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut chars = text.chars().peekable();
        let literal = |pieces: &mut Vec<Piece>, c: char| match pieces.last_mut() {
            Some(Piece::Literal(text)) => text.push(c),
            _ => pieces.push(Piece::Literal(c.to_string())),
        };
        while let Some(c) = chars.next() {
            if c == '\'' {
                if chars.next_if_eq(&'\'').is_some() {
                    literal(&mut pieces, '\'');
                    continue;
                }
                loop {
                    match chars.next() {
                        Some('\'') if chars.next_if_eq(&'\'').is_some() => literal(&mut pieces, '\''),
                        Some('\'') => break,
                        Some(c) => literal(&mut pieces, c),
                        None => return Err(format!("the quote in the pattern {text:?} has no end")),
                    }
                }
                continue;
            }
            if !c.is_ascii_alphabetic() {
                literal(&mut pieces, c);
                continue;
            }
            let mut count = 1;
            while chars.next_if_eq(&c).is_some() {
                count += 1;
            }
            let most = match c {
                'y' | 'u' | 'S' => 9,
                'M' | 'L' | 'E' => 4,
                'D' => 3,
                'X' => 3,
                'a' => 1,
                _ => 2,
            };
            if count > most {
                return Err(format!("the pattern {text:?} has too many letters {c}"));
            }
            pieces.push(match c {
                'y' | 'u' => Piece::Year(count),
                'M' | 'L' => Piece::Month(count),
                'd' => Piece::Day(count),
                'D' => Piece::DayOfYear(count),
                'E' => Piece::Weekday(count),
                'H' => Piece::Hour24(count),
                'h' => Piece::Hour12(count),
                'm' => Piece::Minute(count),
                's' => Piece::Second(count),
                'S' => Piece::Fraction(count),
                'a' => Piece::AmPm,
                'X' => Piece::Zone,
                other => return Err(format!("the letter {other} in the pattern {text:?} is not known; there is y M d D E H h m s S a X, and text in '...'")),
            });
        }
        Ok(Pattern { pieces })
    }

    /// Writes an instant.
    pub fn write(&self, out: &mut String, seconds: i64, nanos: u32) {
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        let (year, month, day) = calendar::civil_from_days(days);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Year(2) => calendar::padded(out, year.rem_euclid(100), 2),
                Piece::Year(width) => calendar::padded(out, year, *width),
                Piece::Month(3) => out.push_str(&MONTHS[month as usize - 1][..3]),
                Piece::Month(4) => out.push_str(MONTHS[month as usize - 1]),
                Piece::Month(width) => calendar::padded(out, i64::from(month), *width),
                Piece::Day(width) => calendar::padded(out, i64::from(day), *width),
                Piece::DayOfYear(width) => calendar::padded(out, calendar::day_of_year(days), *width),
                Piece::Weekday(width) => {
                    let name = WEEKDAYS[calendar::iso_weekday(days) as usize - 1];
                    out.push_str(if *width == 4 { name } else { &name[..3] });
                }
                Piece::Hour24(width) => calendar::padded(out, of_day / 3_600, *width),
                Piece::Hour12(width) => calendar::padded(out, (of_day / 3_600 + 11) % 12 + 1, *width),
                Piece::Minute(width) => calendar::padded(out, of_day / 60 % 60, *width),
                Piece::Second(width) => calendar::padded(out, of_day % 60, *width),
                Piece::Fraction(width) => {
                    calendar::padded(out, i64::from(nanos) / 10i64.pow(9 - *width as u32), *width)
                }
                Piece::AmPm => out.push_str(if of_day < 43_200 { "AM" } else { "PM" }),
                Piece::Zone => out.push('Z'),
            }
        }
    }

    /// Reads an instant: seconds since 1970 and nanoseconds; what the pattern does not name is 1970-01-01 00:00:00.
    pub fn read(&self, text: &str) -> Option<(i64, u32)> {
        let mut rest = text;
        let (mut year, mut month, mut day, mut of_year) = (1970i64, 1u32, 1u32, None);
        let (mut hour, mut hour12, mut afternoon, mut minute, mut second, mut nanos, mut offset) =
            (0i64, None, false, 0i64, 0i64, 0u32, 0i64);
        for (at, piece) in self.pieces.iter().enumerate() {
            // Digits run on into the next field only if their width is fixed.
            let adjacent = matches!(self.pieces.get(at + 1), Some(next) if !matches!(next, Piece::Literal(_) | Piece::AmPm | Piece::Zone));
            let mut number = |width: usize, most: usize| -> Option<i64> {
                let most = if adjacent || width >= 2 {
                    width.max(if adjacent { width } else { most.min(width.max(2)) })
                } else {
                    most
                };
                let end = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
                if end < width.min(most) {
                    return None;
                }
                let value = rest[..end].parse().ok();
                rest = &rest[end..];
                value
            };
            match piece {
                Piece::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Piece::Year(2) => year = 2000 + number(2, 2)?,
                Piece::Year(width) => year = number(*width, 9)?,
                Piece::Month(width @ (3 | 4)) => {
                    let name = |full: &'static str| if *width == 3 { &full[..3] } else { full };
                    let found = MONTHS.iter().position(|full| rest.starts_with(name(full)))?;
                    rest = &rest[name(MONTHS[found]).len()..];
                    month = found as u32 + 1;
                }
                Piece::Month(width) => month = number(*width, 2)? as u32,
                Piece::Day(width) => day = number(*width, 2)? as u32,
                Piece::DayOfYear(width) => of_year = Some(number(*width, 3)?),
                Piece::Weekday(width) => {
                    let name = |full: &'static str| if *width == 4 { full } else { &full[..3] };
                    let found = WEEKDAYS.iter().position(|full| rest.starts_with(name(full)))?;
                    rest = &rest[name(WEEKDAYS[found]).len()..];
                }
                Piece::Hour24(width) => hour = number(*width, 2)?,
                Piece::Hour12(width) => hour12 = Some(number(*width, 2)?),
                Piece::Minute(width) => minute = number(*width, 2)?,
                Piece::Second(width) => second = number(*width, 2)?,
                Piece::Fraction(width) => {
                    let end = rest.bytes().take(*width).take_while(u8::is_ascii_digit).count();
                    if end == 0 {
                        return None;
                    }
                    nanos = format!("{:0<9}", &rest[..end]).parse().ok()?;
                    rest = &rest[end..];
                }
                Piece::AmPm => {
                    let word = rest.get(..2)?;
                    afternoon = word.eq_ignore_ascii_case("PM");
                    if !afternoon && !word.eq_ignore_ascii_case("AM") {
                        return None;
                    }
                    rest = &rest[2..];
                }
                Piece::Zone => {
                    if let Some(after) = rest.strip_prefix('Z') {
                        rest = after;
                        continue;
                    }
                    let sign = match rest.as_bytes().first()? {
                        b'+' => 1,
                        b'-' => -1,
                        _ => return None,
                    };
                    let digits: String = rest[1..].chars().take_while(|c| c.is_ascii_digit() || *c == ':').collect();
                    rest = &rest[1 + digits.len()..];
                    let plain = digits.replace(':', "");
                    if plain.len() != 2 && plain.len() != 4 {
                        return None;
                    }
                    let minutes: i64 = plain.get(2..).filter(|m| !m.is_empty()).map_or(Some(0), |m| m.parse().ok())?;
                    offset = sign * (plain[..2].parse::<i64>().ok()? * 3_600 + minutes * 60);
                }
            }
        }
        if let Some(hour12) = hour12 {
            if !(1..=12).contains(&hour12) {
                return None;
            }
            hour = hour12 % 12 + if afternoon { 12 } else { 0 };
        }
        if !rest.is_empty() || !(1..=12).contains(&month) || day == 0 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        // A day beyond the end of its month is the last one, as Java's default resolver does.
        if day > 31 {
            return None;
        }
        let days = match of_year {
            Some(of_year) if (1..=366).contains(&of_year) => calendar::days_from_civil(year, 1, 1) + of_year - 1,
            Some(_) => return None,
            None => calendar::days_from_civil(year, month, day.min(calendar::days_in_month(year, month))),
        };
        Some((days * 86_400 + hour * 3_600 + minute * 60 + second - offset, nanos))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_write_and_read_back() {
        let at = 1_709_210_096; // 2024-02-29 12:34:56 UTC, a Thursday
        for (pattern, text) in [
            ("yyyy-MM-dd HH:mm:ss", "2024-02-29 12:34:56"),
            ("yyyyMMddHHmmss", "20240229123456"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2024-02-29T12:34:56.000Z"),
            ("EEE, d MMM yyyy h:mm:ss a", "Thu, 29 Feb 2024 12:34:56 PM"),
            ("EEEE dd MMMM yy HH:mm:ss", "Thursday 29 February 24 12:34:56"),
            ("yyyy/D HH'h'mm:ss ''", "2024/60 12h34:56 '"),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            let mut out = String::new();
            parsed.write(&mut out, at, 0);
            assert_eq!(out, text, "{pattern}");
            assert_eq!(parsed.read(text), Some((at, 0)), "{pattern}");
        }
        assert_eq!(Pattern::parse("yyyy-MM-dd").unwrap().read("2024-02-30"), Some((1_709_164_800, 0)));
        assert_eq!(Pattern::parse("HH:mm X").unwrap().read("10:00 +02:00"), Some((8 * 3_600, 0)));
        for (pattern, text) in
            [("yyyy-MM-dd", "2024-2-29"), ("yyyy-MM-dd", "2024-13-01"), ("yyyy", "2024x"), ("MM", ""), ("a", "é")]
        {
            assert_eq!(Pattern::parse(pattern).unwrap().read(text), None, "{pattern} {text}");
        }
        assert!(Pattern::parse("QQ").unwrap_err().contains("letter Q"));
        assert!(Pattern::parse("'x").is_err());
    }
}
