//! Avro's binary encoding, read with nothing believed: what a length or a count says is checked against the bytes that are there.

use super::MAX_DEPTH;
use super::schema::{Schema, Type, TypeId};
use crate::columns::Full;

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Flaw {
    /// Not the record's fault: a column is full.
    Full,
    /// It becomes too long.
    TooLong,
    Truncated,
    /// A number of more bits than its type has.
    Number,
    /// A negative length, or a block that does not end where it says.
    Length(i64),
    Boolean(u8),
    /// A branch that the union does not have.
    Branch(i64),
    /// A symbol that the enum does not have.
    Symbol(i64),
    Utf8,
    TooDeep,
    DuplicateKey(String),
    /// Null where the column is NOT NULL.
    Null,
    /// The value is none of the column's type.
    OutOfRange(String),
}

/// A flaw, where it was found, and below which columns. Boxed, so that the good path returns one word.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) flaw: Flaw,
    /// Bytes of the record that were still unread.
    pub(crate) left: usize,
    /// Names of column and fields, innermost first.
    pub(crate) path: Vec<String>,
    /// SQL name of the innermost one's type.
    pub(crate) data_type: Option<String>,
}

pub(crate) type Outcome<T> = Result<T, Box<Fault>>;

impl From<Full> for Box<Fault> {
    fn from(_: Full) -> Box<Fault> {
        Box::new(Fault { flaw: Flaw::Full, left: 0, path: Vec::new(), data_type: None })
    }
}

/// The unread bytes of a record.
pub(crate) struct Cursor<'a> {
    pub(crate) rest: &'a [u8],
    /// Bytes that may still be made of what is shorter on the wire.
    pub(crate) room: usize,
}

impl<'a> Cursor<'a> {
    #[cold]
    pub(crate) fn fault<T>(&self, flaw: Flaw) -> Outcome<T> {
        Err(Box::new(Fault { flaw, left: self.rest.len(), path: Vec::new(), data_type: None }))
    }

    #[inline(always)]
    pub(crate) fn long(&mut self) -> Outcome<i64> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(unzigzag(u64::from(*first)))
            }
            _ => self.long_long(),
        }
    }

    fn long_long(&mut self) -> Outcome<i64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    return self.fault(Flaw::Number);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(unzigzag(value));
            }
        }
        self.fault(if self.rest.len() < 10 { Flaw::Truncated } else { Flaw::Number })
    }

    #[inline(always)]
    pub(crate) fn int(&mut self) -> Outcome<i64> {
        let value = self.long()?;
        if i32::try_from(value).is_err() {
            return self.fault(Flaw::Number);
        }
        Ok(value)
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => self.fault(Flaw::Truncated),
        }
    }

    #[inline(always)]
    pub(crate) fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => self.fault(Flaw::Truncated),
        }
    }

    /// A length, then as many bytes.
    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Outcome<&'a [u8]> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => self.fault(Flaw::Length(length)),
        }
    }

    pub(crate) fn boolean(&mut self) -> Outcome<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => self.fault(Flaw::Boolean(other)),
        }
    }

    /// The head of a block of an array or map: how many items follow (0 ends it), and the bytes that they take, if it says so.
    #[inline]
    pub(crate) fn block(&mut self) -> Outcome<(u64, Option<usize>)> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count as u64, None));
        }
        let size = self.long()?;
        match usize::try_from(size) {
            Ok(size) if size <= self.rest.len() => Ok((count.unsigned_abs(), Some(size))),
            Ok(_) => self.fault(Flaw::Truncated),
            Err(_) => self.fault(Flaw::Length(size)),
        }
    }

    /// Calls `item` for each item of an array or map, whose items take at least one byte each, and checks the sizes that blocks announce.
    #[inline]
    pub(crate) fn items(&mut self, mut item: impl FnMut(&mut Cursor<'a>) -> Outcome<()>) -> Outcome<()> {
        loop {
            let (count, size) = self.block()?;
            if count == 0 && size.is_none() {
                return Ok(());
            }
            if count > self.rest.len() as u64 {
                return self.fault(Flaw::Truncated);
            }
            let end = size.map(|size| self.rest.len() - size);
            for _ in 0..count {
                item(self)?;
            }
            if let Some(end) = end
                && end != self.rest.len()
            {
                return self.fault(Flaw::Length(size.map_or(0, |size| size as i64)));
            }
        }
    }

    /// Passes over a value that no column needs.
    pub(crate) fn skip(&mut self, schema: &Schema, id: TypeId, depth: usize) -> Outcome<()> {
        if schema.is_zero_width(id) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return self.fault(Flaw::TooDeep);
        }
        match schema.get(id) {
            Type::Null => {}
            Type::Boolean => drop(self.boolean()?),
            Type::Int => drop(self.int()?),
            Type::Long => drop(self.long()?),
            Type::Float => drop(self.take(4)?),
            Type::Double => drop(self.take(8)?),
            Type::Bytes | Type::String => drop(self.bytes()?),
            Type::Fixed { size, .. } => drop(self.take(*size)?),
            Type::Enum { symbols, .. } => drop(self.symbol(symbols)?),
            &Type::Array(item) => self.skip_blocks(schema.is_zero_width(item), |c| c.skip(schema, item, depth + 1))?,
            &Type::Map(value) => self.skip_blocks(false, |c| {
                c.bytes()?;
                c.skip(schema, value, depth + 1)
            })?,
            Type::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip(schema, branch, depth + 1)?;
            }
            Type::Record { fields, .. } => {
                for &(_, field) in fields {
                    self.skip(schema, field, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn skip_blocks(&mut self, zero_width: bool, mut item: impl FnMut(&mut Cursor<'a>) -> Outcome<()>) -> Outcome<()> {
        loop {
            match self.block()? {
                (0, None) => return Ok(()),
                (_, Some(size)) => drop(self.take(size)?),
                (_, None) if zero_width => {}
                (count, None) if count > self.rest.len() as u64 => return self.fault(Flaw::Truncated),
                (count, None) => {
                    for _ in 0..count {
                        item(self)?;
                    }
                }
            }
        }
    }

    pub(crate) fn branch(&mut self, branches: &[TypeId]) -> Outcome<TypeId> {
        let branch = self.long()?;
        match usize::try_from(branch).ok().and_then(|branch| branches.get(branch)) {
            Some(&id) => Ok(id),
            None => self.fault(Flaw::Branch(branch)),
        }
    }

    pub(crate) fn symbol<'s>(&mut self, symbols: &'s [String]) -> Outcome<&'s str> {
        let symbol = self.int()?;
        match usize::try_from(symbol).ok().and_then(|symbol| symbols.get(symbol)) {
            Some(symbol) => Ok(symbol),
            None => self.fault(Flaw::Symbol(symbol)),
        }
    }
}

#[inline(always)]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
