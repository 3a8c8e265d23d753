//! Functions of texts. Positions and lengths count characters, from 1.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use datafusion_common::Result;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::functions::{Function, Strict};
use crate::physical::Arg;

pub(crate) const FUNCTIONS: &[Function] =
    &[Function { names: &["CONCAT"], args: 1..=usize::MAX, usage: "CONCAT(text, ...)", bind: concat }];

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

/// Texts written row by row into one buffer; `false` or `None` from `write` makes NULL.
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
    let strict =
        Strict { name: "CONCAT", wanted: &[DataType::String], out: DataType::String, may_null: false, fallible: false };
    strict.bind(
        binder,
        args,
        kernel(|args, rows| {
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
        }),
    )
}
