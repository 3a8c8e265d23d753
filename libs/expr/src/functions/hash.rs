//! Digests and encodings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, fault};
use crate::functions::text::{Texts, map, map_integer, write_rows};
use crate::functions::{Function, TEXT, function, strict};
use crate::types::Ty;

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["SHA1"], 1..=1, "SHA1(text)", |b, a| {
        map(b, "SHA1", a, |text, out| *out += &hex_of(&sha1(text.as_bytes())))
    }),
    function(&["SHA224"], 1..=1, "SHA224(text)", |b, a| sha2(b, a, "224")),
    function(&["SHA256"], 1..=1, "SHA256(text)", |b, a| sha2(b, a, "256")),
    function(&["SHA384"], 1..=1, "SHA384(text)", |b, a| sha2(b, a, "384")),
    function(&["SHA512"], 1..=1, "SHA512(text)", |b, a| sha2(b, a, "512")),
    function(&["SHA2"], 2..=2, "SHA2(text, 256)", sha2_of_bits),
    function(&["TO_BASE64"], 1..=1, "TO_BASE64(text or bytes)", |b, a| {
        of_bytes(b, "TO_BASE64", a, |bytes, out| *out += &base64(bytes))
    }),
    function(&["FROM_BASE64"], 1..=1, "FROM_BASE64(text)", from_base64),
    function(&["HEX"], 1..=1, "HEX(number, text or bytes)", hex),
    function(&["UNHEX"], 1..=1, "UNHEX(text)", unhex_text),
    function(&["ENCODE"], 2..=2, "ENCODE(text, 'UTF-8')", |b, a| charset(b, a, "ENCODE", DataType::Bytes)),
    function(&["DECODE"], 2..=2, "DECODE(bytes, 'UTF-8')", |b, a| charset(b, a, "DECODE", DataType::String)),
];

/// The bytes of pairs of hexadecimal digits.
pub(crate) fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest by DataFusion, as lower-case hexadecimal text.
fn sha2(binder: &mut Binder, args: Vec<Bound>, bits: &str) -> Bind {
    let name = format!("SHA{bits}");
    let args =
        args.into_iter().map(|arg| binder.coerce(arg, &DataType::String, "SHA")).collect::<Result<Vec<_>, _>>()?;
    let bytes = super::datafusion::call(binder, &name, args)
        .ok_or_else(|| ExprError::new("unknown_function", format!("there is no function {name}")))??;
    let nullable = bytes.nullable;
    let run = kernel(|args, rows| {
        let bytes = args[0].array.as_binary::<i32>();
        write_rows(rows, |row, out| {
            let at = args[0].at(row);
            Ok(bytes.is_valid(at).then(|| out.push_str(&hex_of(bytes.value(at)))))
        })
    });
    binder.call_with("SHA", vec![bytes], Ty::Sql(DataType::String), nullable, false, run)
}

fn sha2_of_bits(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let bits = args.remove(1);
    match bits.integer() {
        Some(length @ (224 | 256 | 384 | 512)) => sha2(binder, args, &length.to_string()),
        _ => Err(ExprError::new("wrong_arguments", "the length of SHA2 is 224, 256, 384 or 512").at(bits.span)),
    }
}

/// SHA-1, FIPS 180-4.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64) + if padded.len() % 64 > 56 { 64 } else { 0 }, 0);
    let end = padded.len();
    padded[end - 8..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (f, k) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5A82_7999),
                1 => (b ^ c ^ d, 0x6ED9_EBA1),
                2 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut out = [0; 20];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (u32::from(chunk[0]) << 16)
            | (u32::from(*chunk.get(1).unwrap_or(&0)) << 8)
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for at in 0..4 {
            out.push(if at <= chunk.len() { char::from(BASE64[(group >> (18 - 6 * at)) as usize & 63]) } else { '=' });
        }
    }
    out
}

fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.chunks(4) {
        let mut group = 0u32;
        for digit in chunk {
            group = (group << 6) | BASE64.iter().position(|known| known == digit)? as u32;
        }
        group <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&group.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

fn from_base64(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("FROM_BASE64", TEXT, DataType::String).fallible().bind(binder, args, |args, rows| {
        let texts = Texts::of(&args[0]);
        write_rows(rows, |row, out| {
            let Some(text) = texts.get(row) else { return Ok(None) };
            let bytes = base64_bytes(text).ok_or_else(|| fault("FROM_BASE64: the text is not Base64"))?;
            out.push_str(&String::from_utf8_lossy(&bytes));
            Ok(Some(()))
        })
    })
}

/// Upper-case digits: of a number's value, or of a text's bytes.
fn hex(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    match &args[0].ty {
        Ty::Sql(t) if t.is_integer() => map_integer(binder, "HEX", args, |number, out| *out += &format!("{number:X}")),
        _ => of_bytes(binder, "HEX", args, |bytes, out| *out += &hex_of(bytes).to_uppercase()),
    }
}

/// A function of the bytes of a text, or of BYTES, to text.
fn of_bytes(binder: &mut Binder, name: &'static str, args: Vec<Bound>, write: fn(&[u8], &mut String)) -> Bind {
    let wanted: &[DataType] = match &args[0].ty {
        Ty::Sql(DataType::Bytes) => &[DataType::Bytes],
        _ => TEXT,
    };
    let is_text = wanted == TEXT;
    strict(name, wanted, DataType::String).bind(binder, args, move |args, rows| {
        if is_text {
            let texts = Texts::of(&args[0]);
            return write_rows(rows, |row, out| Ok(texts.get(row).map(|text| write(text.as_bytes(), out))));
        }
        let bytes = args[0].array.as_binary::<i32>();
        write_rows(rows, |row, out| {
            let at = args[0].at(row);
            Ok(bytes.is_valid(at).then(|| write(bytes.value(at), out)))
        })
    })
}

/// BYTES of hexadecimal digits; NULL for other texts.
fn unhex_text(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("UNHEX", TEXT, DataType::Bytes).or_null().bind(binder, args, |args, rows| {
        let texts = Texts::of(&args[0]);
        let mut out = BinaryBuilder::new();
        for row in 0..rows {
            let text =
                texts.get(row).map(|text| if text.len() % 2 == 1 { format!("0{text}") } else { text.to_string() });
            out.append_option(text.and_then(|text| unhex(&text)));
        }
        Ok(Arc::new(out.finish()) as ArrayRef)
    })
}

/// UTF-8 and ASCII only.
fn charset(binder: &mut Binder, mut args: Vec<Bound>, name: &'static str, out: DataType) -> Bind {
    let charset = args.remove(1);
    if !charset.text().is_some_and(|name| ["UTF-8", "UTF8", "US-ASCII"].contains(&name.to_uppercase().as_str())) {
        return Err(ExprError::new("unsupported", format!("{name} knows the character set 'UTF-8'")).at(charset.span));
    }
    let value = args.remove(0);
    let wanted = if out == DataType::Bytes { DataType::String } else { DataType::Bytes };
    let value = binder.coerce(value, &wanted, name)?;
    if out == DataType::Bytes {
        return binder.cast(value, &out, crate::cast::Mode::Strict);
    }
    // As Java decodes: what is not UTF-8 becomes U+FFFD, where a CAST fails.
    strict(name, &[DataType::Bytes], DataType::String).bind(binder, vec![value], |args, rows| {
        let bytes = args[0].array.as_binary::<i32>();
        write_rows(rows, |row, out| {
            let at = args[0].at(row);
            Ok(bytes.is_valid(at).then(|| out.push_str(&String::from_utf8_lossy(bytes.value(at)))))
        })
    })
}
