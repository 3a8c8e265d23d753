//! Functions of texts. Positions and lengths count characters, from 1.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int32Array, PrimitiveArray, StringArray, StringBuilder,
};
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion_common::Result;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, fault};
use crate::functions::{Function, TEXT, function, strict};
use crate::physical::Arg;
use crate::types::Ty;

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["CONCAT"], 1..=usize::MAX, "CONCAT(text, ...)", concat),
    function(&["CONCAT_WS"], 1..=usize::MAX, "CONCAT_WS(separator, text, ...)", concat_ws),
    function(&["UPPER"], 1..=1, "UPPER(text)", |b, a| {
        map(b, "UPPER", a, |text, out| out.push_str(&text.to_uppercase()))
    }),
    function(&["LOWER"], 1..=1, "LOWER(text)", |b, a| {
        map(b, "LOWER", a, |text, out| out.push_str(&text.to_lowercase()))
    }),
    function(&["INITCAP"], 1..=1, "INITCAP(text)", |b, a| map(b, "INITCAP", a, init_cap)),
    function(&["REVERSE"], 1..=1, "REVERSE(text)", |b, a| {
        map(b, "REVERSE", a, |text, out| out.extend(text.chars().rev()))
    }),
    function(&["TRIM", "BTRIM"], 1..=2, "TRIM(text) or TRIM(BOTH 'x' FROM text)", |b, a| {
        trim(b, "TRIM", a, true, true)
    }),
    function(&["LTRIM"], 1..=2, "LTRIM(text[, characters])", |b, a| trim(b, "LTRIM", a, true, false)),
    function(&["RTRIM"], 1..=2, "RTRIM(text[, characters])", |b, a| trim(b, "RTRIM", a, false, true)),
    function(&["CHAR_LENGTH", "CHARACTER_LENGTH", "LENGTH"], 1..=1, "CHAR_LENGTH(text)", char_length),
    function(&["ASCII"], 1..=1, "ASCII(text)", ascii),
    function(&["CHR"], 1..=1, "CHR(number)", chr),
    function(&["SUBSTRING", "SUBSTR"], 2..=3, "SUBSTRING(text, from[, length])", substring),
    function(&["LEFT"], 2..=2, "LEFT(text, length)", |b, a| side(b, "LEFT", a)),
    function(&["RIGHT"], 2..=2, "RIGHT(text, length)", |b, a| side(b, "RIGHT", a)),
    function(&["LPAD"], 3..=3, "LPAD(text, length, pad)", |b, a| pad(b, "LPAD", a)),
    function(&["RPAD"], 3..=3, "RPAD(text, length, pad)", |b, a| pad(b, "RPAD", a)),
    function(&["REPEAT"], 2..=2, "REPEAT(text, times)", repeat),
    function(&["REPLACE"], 3..=3, "REPLACE(text, old, new)", replace),
    function(&["SPLIT_INDEX"], 3..=3, "SPLIT_INDEX(text, separator, index from 0)", split_index),
    function(&["LOCATE"], 2..=3, "LOCATE(part, text[, from])", |b, a| position(b, "LOCATE", a)),
    function(&["POSITION"], 2..=2, "POSITION(part IN text)", |b, a| position(b, "POSITION", a)),
    function(&["INSTR"], 2..=2, "INSTR(text, part)", |b, mut a| {
        a.swap(0, 1);
        position(b, "INSTR", a)
    }),
    function(&["STARTSWITH", "STARTS_WITH"], 2..=2, "STARTSWITH(text, start)", |b, a| {
        test(b, "STARTSWITH", a, |text, part| text.starts_with(part))
    }),
    function(&["ENDSWITH", "ENDS_WITH"], 2..=2, "ENDSWITH(text, end)", |b, a| {
        test(b, "ENDSWITH", a, |text, part| text.ends_with(part))
    }),
    function(&["CONTAINS"], 2..=2, "CONTAINS(text, part)", |b, a| {
        test(b, "CONTAINS", a, |text, part| text.contains(part))
    }),
    function(&["IS_ALPHA"], 1..=1, "IS_ALPHA(text)", |b, a| {
        judge(b, "IS_ALPHA", a, |text| text.chars().all(char::is_alphabetic))
    }),
    function(&["IS_DIGIT"], 1..=1, "IS_DIGIT(text)", |b, a| {
        judge(b, "IS_DIGIT", a, |text| text.chars().all(char::is_numeric))
    }),
    function(&["IS_DECIMAL"], 1..=1, "IS_DECIMAL(text)", |b, a| {
        judge(b, "IS_DECIMAL", a, |text| text.trim().parse::<f64>().is_ok_and(f64::is_finite))
    }),
];

/// A text per row.
pub(crate) struct Texts<'a> {
    array: &'a StringArray,
    arg: &'a Arg,
}

impl<'a> Texts<'a> {
    pub fn of(arg: &'a Arg) -> Texts<'a> {
        Texts { array: arg.array.as_string::<i32>(), arg }
    }

    #[inline]
    pub fn get(&self, row: usize) -> Option<&'a str> {
        let at = self.arg.at(row);
        self.array.is_valid(at).then(|| self.array.value(at))
    }
}

/// Texts written row by row into one buffer; `None` from `write` makes NULL.
pub(crate) fn write_rows(
    rows: usize,
    mut write: impl FnMut(usize, &mut String) -> Result<Option<()>>,
) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(rows, rows * 8);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        match write(row, &mut text)? {
            Some(()) => out.append_value(&text),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// CONCAT and ||: NULL if any is.
pub(crate) fn concat(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("CONCAT", TEXT, DataType::String).bind(binder, args, |args, rows| {
        let texts: Vec<Texts> = args.iter().map(Texts::of).collect();
        write_rows(rows, |row, out| {
            for text in &texts {
                match text.get(row) {
                    Some(text) => out.push_str(text),
                    None => return Ok(None),
                }
            }
            Ok(Some(()))
        })
    })
}

/// A number per row.
pub(crate) struct Numbers<'a, T: ArrowPrimitiveType> {
    array: &'a PrimitiveArray<T>,
    arg: &'a Arg,
}

pub(crate) type Ints<'a> = Numbers<'a, Int32Type>;

impl<'a, T: ArrowPrimitiveType> Numbers<'a, T> {
    pub fn of(arg: &'a Arg) -> Self {
        Numbers { array: arg.array.as_primitive::<T>(), arg }
    }

    #[inline]
    pub fn get(&self, row: usize) -> Option<T::Native> {
        let at = self.arg.at(row);
        self.array.is_valid(at).then(|| self.array.value(at))
    }
}

/// A function of one text to text.
pub(crate) fn map(binder: &mut Binder, name: &'static str, args: Vec<Bound>, write: fn(&str, &mut String)) -> Bind {
    strict(name, TEXT, DataType::String).bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        write_rows(rows, |row, out| Ok(texts.get(row).map(|text| write(text, out))))
    })
}

/// A function of one text to another, or to NULL.
pub(crate) fn map_or_null(
    binder: &mut Binder,
    name: &'static str,
    args: Vec<Bound>,
    run: fn(&str) -> Option<String>,
) -> Bind {
    strict(name, TEXT, DataType::String).or_null().bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        write_rows(rows, |row, out| Ok(texts.get(row).and_then(run).map(|text| out.push_str(&text))))
    })
}

/// A function of one BIGINT to text.
pub(crate) fn map_integer(
    binder: &mut Binder,
    name: &'static str,
    args: Vec<Bound>,
    write: impl Fn(i64, &mut String) + Send + Sync + 'static,
) -> Bind {
    strict(name, &[DataType::BigInt], DataType::String).bind(binder, args, move |args, rows| {
        let numbers = Numbers::<Int64Type>::of(&args[0]);
        write_rows(rows, |row, out| Ok(numbers.get(row).map(|number| write(number, out))))
    })
}

/// The first letter of each word is made upper case, the others lower; words are letters and digits.
fn init_cap(text: &str, out: &mut String) {
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric();
    }
}

/// Skips NULLs; NULL only if the separator is.
fn concat_ws(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let args = args
        .into_iter()
        .map(|arg| binder.coerce(arg, &DataType::String, "CONCAT_WS"))
        .collect::<Result<Vec<_>, _>>()?;
    let nullable = args[0].nullable;
    let run = kernel(|args, rows| {
        let texts: Vec<Texts> = args.iter().map(Texts::of).collect();
        write_rows(rows, |row, out| {
            let Some(separator) = texts[0].get(row) else { return Ok(None) };
            for (at, text) in texts[1..].iter().filter_map(|text| text.get(row)).enumerate() {
                if at > 0 {
                    out.push_str(separator);
                }
                out.push_str(text);
            }
            Ok(Some(()))
        })
    });
    binder.call_with("CONCAT_WS", args, Ty::Sql(DataType::String), nullable, false, run)
}

/// Cuts blanks, or any of the given characters.
fn trim(binder: &mut Binder, name: &'static str, args: Vec<Bound>, front: bool, back: bool) -> Bind {
    strict(name, TEXT, DataType::String).bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        let what = args.get(1).map(Texts::of);
        write_rows(rows, |row, out| {
            let characters = what.as_ref().map_or(Some(" "), |what| what.get(row));
            Ok(texts.get(row).zip(characters).map(|(text, characters)| {
                let cut = |c: char| characters.contains(c);
                let text = if front { text.trim_start_matches(cut) } else { text };
                out.push_str(if back { text.trim_end_matches(cut) } else { text });
            }))
        })
    })
}

fn count(binder: &mut Binder, name: &'static str, args: Vec<Bound>, run: fn(&str) -> i32) -> Bind {
    strict(name, TEXT, DataType::Int).bind(binder, args, move |args, rows| {
        let texts = Texts::of(&args[0]);
        Ok(Arc::new((0..rows).map(|row| texts.get(row).map(run)).collect::<Int32Array>()) as ArrayRef)
    })
}

fn char_length(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    count(binder, "CHAR_LENGTH", args, |text| if text.is_ascii() { text.len() } else { text.chars().count() } as i32)
}

/// The number of the first character; 0 for an empty text.
fn ascii(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    count(binder, "ASCII", args, |text| text.as_bytes().first().map_or(0, |byte| i32::from(*byte as i8)))
}

/// The character of a number modulo 256; an empty text for negative numbers.
fn chr(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    map_integer(binder, "CHR", args, |number, out| {
        if number >= 0 {
            out.push(char::from((number % 256) as u8));
        }
    })
}

/// The byte position of a character, counted from 0; the end if there are fewer.
fn byte_of(text: &str, character: usize) -> usize {
    if text.is_ascii() {
        return character.min(text.len());
    }
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

fn characters(text: &str) -> i64 {
    (if text.is_ascii() { text.len() } else { text.chars().count() }) as i64
}

/// From 1; 0 acts as 1, a negative position counts from the end.
fn substring(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("SUBSTRING", &[DataType::String, DataType::Int], DataType::String).bind(binder, args, |args, rows| {
        let (texts, from) = (Texts::of(&args[0]), Ints::of(&args[1]));
        let length = args.get(2).map(Ints::of);
        write_rows(rows, |row, out| {
            let (Some(text), Some(from)) = (texts.get(row), from.get(row)) else { return Ok(None) };
            let length = match &length {
                None => i64::from(i32::MAX),
                Some(length) => match length.get(row) {
                    None => return Ok(None),
                    Some(length) => i64::from(length),
                },
            };
            if length <= 0 {
                return Ok(Some(()));
            }
            let start = match i64::from(from) {
                0 => 0,
                from if from > 0 => from - 1,
                from => characters(text) + from,
            };
            if start < 0 {
                return Ok(Some(()));
            }
            let text = &text[byte_of(text, start as usize)..];
            out.push_str(&text[..byte_of(text, length as usize)]);
            Ok(Some(()))
        })
    })
}

fn side(binder: &mut Binder, name: &'static str, args: Vec<Bound>) -> Bind {
    strict(name, &[DataType::String, DataType::Int], DataType::String).bind(binder, args, move |args, rows| {
        let (texts, lengths) = (Texts::of(&args[0]), Ints::of(&args[1]));
        write_rows(rows, |row, out| {
            Ok(texts.get(row).zip(lengths.get(row)).map(|(text, length)| {
                let length = i64::from(length.max(0));
                match name {
                    "LEFT" => out.push_str(&text[..byte_of(text, length as usize)]),
                    _ => out.push_str(&text[byte_of(text, (characters(text) - length).max(0) as usize)..]),
                }
            }))
        })
    })
}

/// A padded text is refused beyond this many characters: one row must not take all memory.
const LENGTH_MAX: i64 = 10_000_000;

/// To exactly this length; NULL for a negative length or an empty pad that is needed.
fn pad(binder: &mut Binder, name: &'static str, args: Vec<Bound>) -> Bind {
    let wanted = &[DataType::String, DataType::Int, DataType::String];
    strict(name, wanted, DataType::String).or_null().fallible().bind(binder, args, move |args, rows| {
        let (texts, lengths, pads) = (Texts::of(&args[0]), Ints::of(&args[1]), Texts::of(&args[2]));
        write_rows(rows, |row, out| {
            let (Some(text), Some(length), Some(pad)) = (texts.get(row), lengths.get(row), pads.get(row)) else {
                return Ok(None);
            };
            if length < 0 || pad.is_empty() {
                return Ok(None);
            }
            let missing = i64::from(length) - characters(text);
            if missing > LENGTH_MAX {
                return Err(fault(format!("{name} to {length} characters is too long; {LENGTH_MAX} are the most")));
            }
            let padding = pad.chars().cycle().take(missing.max(0) as usize);
            let kept = &text[..byte_of(text, length as usize)];
            if name == "LPAD" {
                out.extend(padding);
                out.push_str(kept);
            } else {
                out.push_str(kept);
                out.extend(padding);
            }
            Ok(Some(()))
        })
    })
}

fn repeat(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("REPEAT", &[DataType::String, DataType::Int], DataType::String).fallible().bind(
        binder,
        args,
        |args, rows| {
            let (texts, times) = (Texts::of(&args[0]), Ints::of(&args[1]));
            write_rows(rows, |row, out| {
                let (Some(text), Some(times)) = (texts.get(row), times.get(row)) else { return Ok(None) };
                if text.len() as i64 * i64::from(times) > LENGTH_MAX {
                    return Err(fault(format!(
                        "REPEAT of {} bytes {times} times is too long; {LENGTH_MAX} are the most",
                        text.len()
                    )));
                }
                (0..times).for_each(|_| out.push_str(text));
                Ok(Some(()))
            })
        },
    )
}

fn replace(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    strict("REPLACE", TEXT, DataType::String).bind(binder, args, |args, rows| {
        let (texts, old, new) = (Texts::of(&args[0]), Texts::of(&args[1]), Texts::of(&args[2]));
        write_rows(rows, |row, out| {
            let (Some(text), Some(old), Some(new)) = (texts.get(row), old.get(row), new.get(row)) else {
                return Ok(None);
            };
            // Nothing is replaced by an empty text, as in Flink.
            if old.is_empty() {
                out.push_str(text);
                return Ok(Some(()));
            }
            for (at, piece) in text.split(old).enumerate() {
                if at > 0 {
                    out.push_str(new);
                }
                out.push_str(piece);
            }
            Ok(Some(()))
        })
    })
}

/// The part with this index, from 0; NULL if there is none. The separator is a text or the number of a character.
fn split_index(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    if matches!(&args[1].ty, Ty::Sql(t) if t.is_integer()) {
        let Some(code) = args[1].integer().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32) else {
            let error = ExprError::new(
                "wrong_arguments",
                "the separator of SPLIT_INDEX is a text, or the constant number of a character",
            );
            return Err(error.at(args[1].span));
        };
        let text = datafusion_common::ScalarValue::Utf8(Some(code.to_string()));
        args[1] = Bound::constant(text, Ty::Sql(DataType::String), args[1].span);
    }
    let wanted = &[DataType::String, DataType::String, DataType::Int];
    strict("SPLIT_INDEX", wanted, DataType::String).or_null().bind(binder, args, |args, rows| {
        let (texts, separators, indexes) = (Texts::of(&args[0]), Texts::of(&args[1]), Ints::of(&args[2]));
        write_rows(rows, |row, out| {
            let (Some(text), Some(separator), Some(index)) = (texts.get(row), separators.get(row), indexes.get(row))
            else {
                return Ok(None);
            };
            let Ok(index) = usize::try_from(index) else { return Ok(None) };
            // An empty separator splits nothing, and an empty text has no parts.
            let part = match (text, separator) {
                ("", _) => None,
                (text, "") => (index == 0).then_some(text),
                (text, separator) => text.split(separator).nth(index),
            };
            Ok(part.map(|part| out.push_str(part)))
        })
    })
}

/// The position of a part in a text, from 1; 0 if it is not there.
fn position(binder: &mut Binder, name: &'static str, args: Vec<Bound>) -> Bind {
    let wanted = &[DataType::String, DataType::String, DataType::Int];
    strict(name, wanted, DataType::Int).bind(binder, args, |args, rows| {
        let (parts, texts) = (Texts::of(&args[0]), Texts::of(&args[1]));
        let starts = args.get(2).map(Ints::of);
        let positions = (0..rows).map(|row| {
            let (part, text) = (parts.get(row)?, texts.get(row)?);
            let start = match &starts {
                None => 1,
                Some(starts) => starts.get(row)?,
            };
            if start < 1 {
                return Some(0);
            }
            let from = byte_of(text, start as usize - 1);
            Some(text[from..].find(part).map_or(0, |at| characters(&text[..from + at]) as i32 + 1))
        });
        Ok(Arc::new(positions.collect::<Int32Array>()) as ArrayRef)
    })
}

fn test(binder: &mut Binder, name: &'static str, args: Vec<Bound>, run: fn(&str, &str) -> bool) -> Bind {
    strict(name, TEXT, DataType::Boolean).bind(binder, args, move |args, rows| {
        let (texts, parts) = (Texts::of(&args[0]), Texts::of(&args[1]));
        let found = (0..rows).map(|row| Some(run(texts.get(row)?, parts.get(row)?)));
        Ok(Arc::new(found.collect::<BooleanArray>()) as ArrayRef)
    })
}

/// A question to a text: false for NULL and for an empty text, as in Flink.
fn judge(binder: &mut Binder, name: &'static str, mut args: Vec<Bound>, run: fn(&str) -> bool) -> Bind {
    let arg = args.remove(0);
    let arg = match &arg.ty {
        Ty::Sql(t) if t.is_numeric() => binder.cast(arg, &DataType::String, crate::cast::Mode::Strict)?,
        _ => binder.coerce(arg, &DataType::String, name)?,
    };
    let judged = kernel(move |args, rows| {
        let texts = Texts::of(&args[0]);
        let found = (0..rows).map(|row| Some(texts.get(row).is_some_and(|text| !text.is_empty() && run(text))));
        Ok(Arc::new(found.collect::<BooleanArray>()) as ArrayRef)
    });
    binder.call_with(name, vec![arg], Ty::Sql(DataType::Boolean), false, false, judged)
}
