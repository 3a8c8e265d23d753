//! The strict grammar of RFC 8259, byte by byte: each function takes a position and gives the one behind what it read.
//!
//! `LINES`: the text is JSON lines. A newline then ends the record wherever it stands (it is neither a blank nor part of a string), so that
//! a broken line can never swallow the next one, and lines need not be searched first.

use super::MAX_DEPTH;
use super::wide::{classify, unusual};

/// What is wrong with a text, and the position where it shows; packed into a word, so that results travel in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flaw {
    ObjectExpected,
    KeyExpected,
    ColonExpected,
    ValueExpected,
    CommaOrBraceExpected,
    CommaOrBracketExpected,
    Number,
    Literal,
    Escape,
    Surrogate,
    Control,
    Utf8,
    TooDeep,
    Trailing,
    Empty,
}

const FLAWS: [Flaw; 15] = [
    Flaw::ObjectExpected,
    Flaw::KeyExpected,
    Flaw::ColonExpected,
    Flaw::ValueExpected,
    Flaw::CommaOrBraceExpected,
    Flaw::CommaOrBracketExpected,
    Flaw::Number,
    Flaw::Literal,
    Flaw::Escape,
    Flaw::Surrogate,
    Flaw::Control,
    Flaw::Utf8,
    Flaw::TooDeep,
    Flaw::Trailing,
    Flaw::Empty,
];

const POSITION_BITS: u32 = usize::BITS - 8;

impl Fault {
    #[cold]
    pub(crate) fn new(flaw: Flaw, position: usize) -> Fault {
        Fault((flaw as usize) << POSITION_BITS | position)
    }

    pub(crate) fn position(self) -> usize {
        self.0 & ((1 << POSITION_BITS) - 1)
    }

    pub(crate) fn flaw(self) -> Flaw {
        FLAWS[self.0 >> POSITION_BITS]
    }
}

type Scanned = Result<usize, Fault>;

/// The byte at a position, or 0, which no grammar rule takes, behind the end.
#[inline(always)]
pub(crate) fn byte(text: &[u8], position: usize) -> u8 {
    text.get(position).copied().unwrap_or(0)
}

#[inline(always)]
pub(crate) fn blanks<const LINES: bool>(text: &[u8], position: usize) -> usize {
    // Most records have none.
    if byte(text, position) > b' ' { position } else { some_blanks::<LINES>(text, position) }
}

#[inline(never)]
fn some_blanks<const LINES: bool>(text: &[u8], mut position: usize) -> usize {
    while matches!(byte(text, position), b' ' | b'\t' | b'\r') || (!LINES && byte(text, position) == b'\n') {
        position += 1;
    }
    position
}

/// End of a string, and whether it has escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringEnd(usize);

impl StringEnd {
    const ESCAPED: usize = 1 << (usize::BITS - 1);

    /// Position behind the closing quote.
    #[inline(always)]
    pub(crate) fn after(self) -> usize {
        self.0 & !StringEnd::ESCAPED
    }

    #[inline(always)]
    pub(crate) fn escaped(self) -> bool {
        self.0 & StringEnd::ESCAPED != 0
    }
}

/// A string whose first byte behind the quote is at `start`: quotes, escapes, controls and UTF-8 are all checked, the latter only if there
/// are non-ASCII bytes.
#[inline(always)]
pub(crate) fn string(text: &[u8], start: usize) -> Result<StringEnd, Fault> {
    let mut position = start;
    while let Some(chunk) = text.get(position..position + 32) {
        let unusual = unusual(chunk.try_into().expect("the range has 32 bytes"));
        if unusual != 0 {
            position += unusual.trailing_zeros() as usize;
            if text[position] == b'"' {
                return Ok(StringEnd(position + 1));
            }
            break;
        }
        position += 32;
    }
    careful_string(text, start, position)
}

/// As [`string`], from `position` on: what is before it is plain ASCII.
#[inline(never)]
fn careful_string(text: &[u8], start: usize, mut position: usize) -> Result<StringEnd, Fault> {
    let mut non_ascii = 0;
    let mut escaped = 0;
    loop {
        let (stops, high, width) = match text.get(position..position + 16) {
            Some(chunk) => {
                let (stops, high) = classify(chunk.try_into().expect("the range has 16 bytes"));
                (stops, high, 16)
            }
            None => {
                let rest = text.get(position..).unwrap_or_default();
                let mut chunk = [0; 16]; // zeros are controls: they stop the scan behind the end
                chunk[..rest.len()].copy_from_slice(rest);
                let (stops, high) = classify(&chunk);
                (stops, high, rest.len())
            }
        };
        if stops == 0 {
            non_ascii |= high;
            position += width;
            continue;
        }
        let first = stops.trailing_zeros();
        non_ascii |= high & ((1 << first) - 1);
        position += first as usize;
        match byte(text, position) {
            b'"' => break,
            b'\\' => {
                position = escape(text, position)?;
                escaped = StringEnd::ESCAPED;
            }
            _ => return Err(Fault::new(Flaw::Control, position)),
        }
    }
    if non_ascii != 0 {
        valid_utf8(text, start, position)?;
    }
    Ok(StringEnd((position + 1) | escaped))
}

/// The next character from a position on that a string must escape.
pub(crate) fn to_escape(text: &[u8], start: usize) -> Option<usize> {
    let mut position = start;
    for chunk in text[start..].chunks(16) {
        let mut bytes = [b' '; 16];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let (stops, _) = classify(&bytes);
        if stops != 0 {
            return Some(position + stops.trailing_zeros() as usize);
        }
        position += chunk.len();
    }
    None
}

#[cold]
fn valid_utf8(text: &[u8], start: usize, end: usize) -> Result<(), Fault> {
    match std::str::from_utf8(&text[start..end]) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(Flaw::Utf8, start + error.valid_up_to())),
    }
}

/// The escape whose backslash is at `position`; a surrogate pair counts as one.
#[cold]
fn escape(text: &[u8], position: usize) -> Scanned {
    match byte(text, position + 1) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(position + 2),
        b'u' => match hex(text, position + 2)? {
            0xd800..=0xdbff => {
                if byte(text, position + 6) != b'\\' || byte(text, position + 7) != b'u' {
                    return Err(Fault::new(Flaw::Surrogate, position));
                }
                match hex(text, position + 8)? {
                    0xdc00..=0xdfff => Ok(position + 12),
                    _ => Err(Fault::new(Flaw::Surrogate, position)),
                }
            }
            0xdc00..=0xdfff => Err(Fault::new(Flaw::Surrogate, position)),
            _ => Ok(position + 6),
        },
        _ => Err(Fault::new(Flaw::Escape, position + 1)),
    }
}

fn hex(text: &[u8], position: usize) -> Result<u32, Fault> {
    let mut value = 0;
    for at in position..position + 4 {
        match (byte(text, at) as char).to_digit(16) {
            Some(digit) => value = value << 4 | digit,
            None => return Err(Fault::new(Flaw::Escape, at)),
        }
    }
    Ok(value)
}

/// Appends the text of a string's inside that [`string`] accepted.
pub(crate) fn unescape(inside: &[u8], out: &mut Vec<u8>) {
    let mut rest = inside;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let accepted = "the string was accepted";
        let mut length = 2;
        let character = match rest[at + 1] {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                length = 6;
                let mut code = hex(rest, at + 2).expect(accepted);
                if (0xd800..0xdc00).contains(&code) {
                    length = 12;
                    code = 0x10000 + ((code - 0xd800) << 10) + (hex(rest, at + 8).expect(accepted) - 0xdc00);
                }
                char::from_u32(code).expect(accepted)
            }
            other => other as char,
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
}

/// How many of the 8 bytes are digits before the first that is not; and the bytes with '0' as zero.
#[inline(always)]
fn leading_digits(text: &[u8], position: usize) -> Option<(u32, u64)> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(text.get(position..position + 8)?.try_into().expect("the range has 8 bytes"));
    let values = word ^ (ONES * 0x30);
    // A digit's value plus 6 stays below 16. A carry out of a byte comes from one that is no digit, and touches only bytes behind it.
    let others = (values | values.wrapping_add(ONES * 6)) & (ONES * 0xf0);
    Some((others.trailing_zeros() / 8, values))
}

/// Value of 8 digits, each in a byte, the first in the lowest one.
/// Daniel Lemire, "Quickly parsing eight digits", https://lemire.me/blog/2022/01/21/swar-explained-parsing-eight-digits/
#[inline(always)]
fn eight_digits(values: u64) -> u64 {
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
}

const POWERS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// A plain integer of up to 19 digits and the position behind it. None: it is not that simple (a fraction, an exponent, too large, the end
/// of the text is near, or no number at all), so the slow path has to look.
#[inline(always)]
pub(crate) fn integer(text: &[u8], start: usize) -> Option<(i64, usize)> {
    let negative = byte(text, start) == b'-';
    let first = start + usize::from(negative);
    let mut position = first;
    let mut value = 0u64;
    loop {
        let (count, digits) = leading_digits(text, position)?;
        if count == 8 {
            if position - first >= 16 {
                return None;
            }
            value = value * 100_000_000 + eight_digits(digits);
            position += 8;
            continue;
        }
        if count > 0 {
            if position - first + count as usize > 19 {
                return None;
            }
            value = value * POWERS[count as usize] + eight_digits(digits << (64 - 8 * count));
            position += count as usize;
        }
        break;
    }
    let length = position - first;
    if length == 0 || (byte(text, first) == b'0' && length > 1) || matches!(byte(text, position), b'.' | b'e' | b'E') {
        return None;
    }
    let value = if negative { 0i64.checked_sub_unsigned(value)? } else { i64::try_from(value).ok()? };
    Some((value, position))
}

#[inline(always)]
fn digits(text: &[u8], mut position: usize) -> usize {
    while let Some((8, _)) = leading_digits(text, position) {
        position += 8;
    }
    while byte(text, position).is_ascii_digit() {
        position += 1;
    }
    position
}

#[inline(always)]
fn number(text: &[u8], start: usize) -> Scanned {
    let first = start + usize::from(byte(text, start) == b'-');
    let mut position = match byte(text, first) {
        b'0' => first + 1,
        b'1'..=b'9' => match leading_digits(text, first) {
            Some((count, _)) if count < 8 => first + count as usize,
            _ => digits(text, first + 1),
        },
        _ => return Err(Fault::new(Flaw::Number, first)),
    };
    if byte(text, position) == b'.' {
        let end = digits(text, position + 1);
        if end == position + 1 {
            return Err(Fault::new(Flaw::Number, end));
        }
        position = end;
    }
    if matches!(byte(text, position), b'e' | b'E') {
        let first = position + 1 + usize::from(matches!(byte(text, position + 1), b'+' | b'-'));
        position = digits(text, first);
        if position == first {
            return Err(Fault::new(Flaw::Number, first));
        }
    }
    Ok(position)
}

#[inline]
fn literal(text: &[u8], start: usize, name: &[u8]) -> Scanned {
    match text.get(start..start + name.len()) {
        Some(found) if found == name => Ok(start + name.len()),
        _ => Err(Fault::new(Flaw::Literal, start)),
    }
}

/// Any value, checked to its end. `depth`: how many arrays and objects are open around it.
#[inline(always)]
pub(crate) fn value<const LINES: bool>(text: &[u8], start: usize, depth: usize) -> Scanned {
    if matches!(byte(text, start), b'{' | b'[') { container::<LINES>(text, start, depth) } else { scalar(text, start) }
}

#[inline(always)]
fn scalar(text: &[u8], start: usize) -> Scanned {
    // In the order of how common they are, and without a jump table.
    let first = byte(text, start);
    if first == b'"' {
        Ok(string(text, start + 1)?.after())
    } else if first.is_ascii_digit() || first == b'-' {
        number(text, start)
    } else {
        name(text, start)
    }
}

#[inline(never)]
fn name(text: &[u8], start: usize) -> Scanned {
    match byte(text, start) {
        b't' => literal(text, start, b"true"),
        b'f' => literal(text, start, b"false"),
        b'n' => literal(text, start, b"null"),
        _ => Err(Fault::new(Flaw::ValueExpected, start)),
    }
}

/// An array or object, without recursion: a bit per open one says which it is.
#[inline(never)]
fn container<const LINES: bool>(text: &[u8], start: usize, depth: usize) -> Scanned {
    let limit = MAX_DEPTH.saturating_sub(depth);
    let mut is_object = [0u64; MAX_DEPTH / 64];
    let mut open = 0; // containers open inside this call
    let mut position = start;
    'value: loop {
        // A value begins here.
        let first = byte(text, position);
        if matches!(first, b'{' | b'[') {
            if open == limit {
                return Err(Fault::new(Flaw::TooDeep, position));
            }
            let (word, bit) = (open / 64, 1 << (open % 64));
            open += 1;
            position = blanks::<LINES>(text, position + 1);
            if first == b'{' {
                is_object[word] |= bit;
                if byte(text, position) != b'}' {
                    position = key::<LINES>(text, position)?;
                    continue 'value;
                }
            } else {
                is_object[word] &= !bit;
                if byte(text, position) != b']' {
                    continue 'value;
                }
            }
            position += 1;
            open -= 1;
        } else {
            position = scalar(text, position)?;
        }
        // A value ended here.
        loop {
            if open == 0 {
                return Ok(position);
            }
            position = blanks::<LINES>(text, position);
            let in_object = is_object[(open - 1) / 64] >> ((open - 1) % 64) & 1 == 1;
            match byte(text, position) {
                b',' => {
                    position = blanks::<LINES>(text, position + 1);
                    if in_object {
                        position = key::<LINES>(text, position)?;
                    }
                    continue 'value;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ if in_object => return Err(Fault::new(Flaw::CommaOrBraceExpected, position)),
                _ => return Err(Fault::new(Flaw::CommaOrBracketExpected, position)),
            }
            position += 1;
            open -= 1;
        }
    }
}

/// A key and its colon, up to the value.
#[inline]
fn key<const LINES: bool>(text: &[u8], start: usize) -> Scanned {
    if byte(text, start) != b'"' {
        return Err(Fault::new(Flaw::KeyExpected, start));
    }
    let after = blanks::<LINES>(text, string(text, start + 1)?.after());
    if byte(text, after) != b':' {
        return Err(Fault::new(Flaw::ColonExpected, after));
    }
    Ok(blanks::<LINES>(text, after + 1))
}

/// Items of an array, or keys (insides of their strings, as written) and values of an object, which [`value`] accepted.
pub(crate) struct Members<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Members<'a> {
    pub(crate) fn new(container: &'a [u8]) -> Members<'a> {
        Members { text: container, position: 1 }
    }

    /// Up to the next item; false at the end.
    fn advance(&mut self) -> bool {
        self.position = blanks::<false>(self.text, self.position);
        if byte(self.text, self.position) == b',' {
            self.position = blanks::<false>(self.text, self.position + 1);
        }
        !matches!(byte(self.text, self.position), b']' | b'}')
    }

    fn take_value(&mut self) -> &'a [u8] {
        let end = value::<false>(self.text, self.position, 0).expect("the container was accepted");
        let value = &self.text[self.position..end];
        self.position = end;
        value
    }

    pub(crate) fn next_item(&mut self) -> Option<&'a [u8]> {
        self.advance().then(|| self.take_value())
    }

    pub(crate) fn next_member(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        if !self.advance() {
            return None;
        }
        let accepted = "the container was accepted";
        let start = self.position + 1;
        let end = string(self.text, start).expect(accepted).after() - 1;
        self.position = key::<false>(self.text, self.position).expect(accepted);
        Some((&self.text[start..end], self.take_value()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn integers_of_all_lengths() {
        let padded = |text: &str| format!("{text},       ");
        for length in 1..=19 {
            for text in [
                "9".repeat(length),
                format!("1{}", "0".repeat(length - 1)),
                "1234567890123456789"[..length].to_string(),
            ] {
                for text in [text.clone(), format!("-{text}")] {
                    assert_eq!(
                        integer(padded(&text).as_bytes(), 0),
                        text.parse().ok().map(|value: i64| (value, text.len())),
                        "{text}"
                    );
                }
            }
        }
        for slow in [
            "",
            "-",
            "01",
            "-01",
            "00",
            "1.0",
            "1e3",
            "1E3",
            "12345678901234567890",
            "99999999999999999999999999",
            "x",
            "+1",
            "9223372036854775808",
        ] {
            assert_eq!(integer(padded(slow).as_bytes(), 0), None, "{slow}");
        }
        assert_eq!(integer(padded("-9223372036854775808").as_bytes(), 0), Some((i64::MIN, 20)));
        assert_eq!(integer(padded("-0").as_bytes(), 0), Some((0, 2)));
        assert_eq!(integer(b"12345678", 0), None, "too near to the end to load a word");
    }

    #[test]
    fn depth_is_counted_without_recursion() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(value::<true>(&nested(1024), 0, 0), Ok(2048));
        assert_eq!(value::<true>(&nested(1025), 0, 0).unwrap_err().flaw(), Flaw::TooDeep);
        assert_eq!(value::<true>(&nested(1023), 0, 1), Ok(2046));
        assert_eq!(value::<true>(&nested(1024), 0, 1).unwrap_err().position(), 1023);
        assert_eq!(value::<true>(&nested(200_000), 0, 0).unwrap_err().flaw(), Flaw::TooDeep);
    }

    #[test]
    fn members_of_accepted_containers() {
        let mut items = Members::new(br#"[ 1 , "a,]" ,[2,{}], null]"#);
        let found: Vec<_> = std::iter::from_fn(|| items.next_item()).collect();
        assert_eq!(found, [&b"1"[..], b"\"a,]\"", b"[2,{}]", b"null"]);
        let mut members = Members::new(br#"{ "a" : 1,"b\"}":{"c":2} }"#);
        let found: Vec<_> = std::iter::from_fn(|| members.next_member()).collect();
        assert_eq!(found, [(&b"a"[..], &b"1"[..]), (b"b\\\"}", b"{\"c\":2}")]);
        assert!(Members::new(b"[ ]").next_item().is_none());
    }
}
