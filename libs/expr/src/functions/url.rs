//! Parts of URLs, and the encoding of their texts.

use graph::DataType;

use crate::bind::{Bind, Binder, Bound};
use crate::functions::text::{Texts, map, map_or_null, write_rows};
use crate::functions::{Function, TEXT, function, strict};

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["PARSE_URL"], 2..=3, "PARSE_URL(url, 'HOST'[, key])", parse_url),
    function(&["URL_ENCODE"], 1..=1, "URL_ENCODE(text)", |b, a| map(b, "URL_ENCODE", a, url_encode)),
    function(&["URL_DECODE"], 1..=1, "URL_DECODE(text)", |b, a| map_or_null(b, "URL_DECODE", a, url_decode)),
];

struct Url<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Url<'a>> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let known = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        known.then_some(Url { scheme, authority, path, query, fragment })
    }

    fn part(&self, name: &str) -> Option<String> {
        let host = self.authority.rsplit_once('@').map_or(self.authority, |(_, host)| host);
        Some(match name {
            "PROTOCOL" => self.scheme.to_string(),
            "AUTHORITY" => self.authority.to_string(),
            "USERINFO" => self.authority.rsplit_once('@')?.0.to_string(),
            "HOST" => host
                .rsplit_once(':')
                .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
                .map_or(host, |(host, _)| host)
                .to_string(),
            "PATH" => self.path.to_string(),
            "FILE" => self.query.map_or(self.path.to_string(), |query| format!("{}?{query}", self.path)),
            "QUERY" => self.query?.to_string(),
            "REF" => self.fragment?.to_string(),
            _ => return None,
        })
    }
}

/// NULL for what is no URL, has no such part, or asks for a part that does not exist.
fn parse_url(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("PARSE_URL", TEXT, DataType::String).or_null().bind(binder, args, |args, rows| {
        let (urls, parts) = (Texts::of(&args[0]), Texts::of(&args[1]));
        let keys = args.get(2).map(Texts::of);
        write_rows(rows, |row, out| {
            let found = urls.get(row).zip(parts.get(row)).and_then(|(text, part)| {
                let url = Url::parse(text)?;
                match &keys {
                    None => url.part(part),
                    Some(keys) if part == "QUERY" => {
                        let key = keys.get(row)?;
                        let value = url
                            .query?
                            .split('&')
                            .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
                        value.map(|(_, value)| value.to_string())
                    }
                    Some(_) => None,
                }
            });
            Ok(found.map(|found| out.push_str(&found)))
        })
    })
}

/// As `application/x-www-form-urlencoded`: blanks are `+`.
fn url_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte) => out.push(char::from(byte)),
            byte => *out += &format!("%{byte:02X}"),
        }
    }
}

/// None for a text that was not encoded so.
fn url_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?)
                    .ok()
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}
