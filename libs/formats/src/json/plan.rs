//! What to do with each key: compiled from the needed columns, and tuned to the data while scanning.
//!
//! Records of one source mostly have the same keys in the same order. So each object remembers the tokens it has seen (a key with its quotes
//! and colon, as written) and which token followed which: the next one is predicted and compared as one word, and only a miss is searched,
//! then parsed.

use std::collections::HashMap;

use crate::columns::{Column, Data, Kind};
use crate::json::lex::{Fault, Flaw, blanks, byte, string, unescape};
use crate::json::value::as_text;
use crate::json::wide::equal;
use crate::text::Minute;

/// Tokens remembered per object beside two for each needed key; data with more distinct keys still works, through the parser.
const MAX_OTHER_TOKENS: usize = 64;
/// Longer tokens are not remembered.
const MAX_TOKEN_BYTES: usize = 128;
/// After so many keys that were not remembered because the list was full, it starts anew.
const MISSES_TO_RELEARN: u32 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// No column needs the value.
    Skip,
    Leaf {
        slot: u16,
        fast: Fast,
    },
    /// A ROW column, which is the object with this index.
    Object {
        slot: u16,
        object: u16,
    },
}

/// Which fast path a leaf has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fast {
    Integer,
    Text,
    Timestamp,
    None,
}

/// A column or a field of a ROW column, in pre-order.
pub(crate) struct Leaf {
    /// Dotted name, for messages.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Slots from this one's next to here are its fields.
    pub(crate) subtree_end: usize,
    pub(crate) minute: Minute,
}

struct Token {
    /// The first 16 bytes, and which of them count.
    head: [u8; 16],
    mask: u32,
    text: Box<[u8]>,
    action: Action,
    /// Index of the token that last followed this one.
    next: u16,
}

impl Token {
    fn new(text: &[u8], action: Action) -> Token {
        let mut head = [0; 16];
        let length = text.len().min(16);
        head[..length].copy_from_slice(&text[..length]);
        Token { head, mask: (1 << length) - 1, text: text.into(), action, next: 0 }
    }

    #[inline(always)]
    fn matches(&self, text: &[u8], start: usize) -> bool {
        let length = self.text.len();
        match text.get(start..start + 16) {
            Some(chunk) => {
                let equal = equal(chunk.try_into().expect("the range has 16 bytes"), &self.head);
                equal & self.mask == self.mask
                    && (length <= 16
                        || text.get(start + 16..start + length).is_some_and(|rest| *rest == self.text[16..]))
            }
            None => length > 0 && text.get(start..start + length).is_some_and(|whole| *whole == *self.text),
        }
    }
}

/// An object of the needed schema: the record itself or a ROW column.
pub(crate) struct Object {
    members: HashMap<String, Action>,
    /// In the order of the schema.
    names: Vec<String>,
    /// The first stands for the beginning of the object and never matches.
    tokens: Vec<Token>,
    /// Their places by text.
    places: HashMap<Box<[u8]>, u16>,
    misses: u32,
}

/// Index of the token before the first key of an object.
pub(crate) const START: usize = 0;

impl Object {
    fn new(members: Vec<(String, Action)>) -> Object {
        let names = members.iter().map(|(name, _)| name.clone()).collect();
        let members = members.into_iter().collect();
        let mut object = Object { members, names, tokens: Vec::new(), places: HashMap::new(), misses: 0 };
        object.forget();
        object
    }

    /// Back to the keys of the schema.
    fn forget(&mut self) {
        self.misses = 0;
        self.places.clear();
        self.tokens.clear();
        // Whatever the text, it does not match: it wants a bit that no comparison sets.
        self.tokens.push(Token { mask: 1 << 31, ..Token::new(b"", Action::Skip) });
        for name in std::mem::take(&mut self.names) {
            let plain = name.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
            if plain {
                self.learn(format!("\"{name}\":").as_bytes(), self.members[&name], self.tokens.len() - 1);
            }
            self.names.push(name);
        }
    }

    /// Remembers a token that followed another; gives its place, or [`START`] if it is too long or the list is full.
    fn learn(&mut self, token: &[u8], action: Action, previous: usize) -> usize {
        let place = self.tokens.len();
        let limit = (MAX_OTHER_TOKENS + 2 * self.members.len()).min(usize::from(u16::MAX));
        if token.len() > MAX_TOKEN_BYTES {
            return START;
        }
        if place > limit {
            self.misses += 1;
            if self.misses == MISSES_TO_RELEARN {
                self.forget();
            }
            return START;
        }
        self.tokens[previous].next = place as u16;
        self.tokens.push(Token::new(token, action));
        self.places.insert(token.into(), place as u16);
        place
    }

    /// The key at `start` (its quote): which token it is, what to do with its value, and the position behind its colon.
    #[inline(always)]
    pub(crate) fn key<const LINES: bool>(
        &mut self,
        text: &[u8],
        start: usize,
        previous: usize,
    ) -> Result<(usize, Action, usize), Fault> {
        let predicted = usize::from(self.tokens[previous].next);
        let token = &self.tokens[predicted];
        if token.matches(text, start) {
            return Ok((predicted, token.action, start + token.text.len()));
        }
        self.search::<LINES>(text, start, previous)
    }

    #[inline(never)]
    fn search<const LINES: bool>(
        &mut self,
        text: &[u8],
        start: usize,
        previous: usize,
    ) -> Result<(usize, Action, usize), Fault> {
        if byte(text, start) != b'"' {
            return Err(Fault::new(Flaw::KeyExpected, start));
        }
        let end = string(text, start + 1)?;
        let colon = blanks::<LINES>(text, end.after());
        if byte(text, colon) != b':' {
            return Err(Fault::new(Flaw::ColonExpected, colon));
        }
        let token = &text[start..colon + 1];
        if let Some(&place) = self.places.get(token) {
            self.tokens[previous].next = place;
            return Ok((place.into(), self.tokens[usize::from(place)].action, colon + 1));
        }
        let inside = &text[start + 1..end.after() - 1];
        let action = if end.escaped() {
            let mut name = Vec::new();
            unescape(inside, &mut name);
            self.action(&name)
        } else {
            self.action(inside)
        };
        Ok((self.learn(token, action, previous), action, colon + 1))
    }

    fn action(&self, name: &[u8]) -> Action {
        self.members.get(as_text(name)).copied().unwrap_or(Action::Skip)
    }
}

/// The objects (the record is the first) and slots of the needed columns.
pub(crate) fn compile(columns: &[Column]) -> (Vec<Object>, Vec<Leaf>) {
    let (mut objects, mut leaves) = (vec![Object::new(Vec::new())], Vec::new());
    objects[0] = Object::new(members(columns, "", &mut objects, &mut leaves));
    (objects, leaves)
}

fn members(
    columns: &[Column],
    prefix: &str,
    objects: &mut Vec<Object>,
    leaves: &mut Vec<Leaf>,
) -> Vec<(String, Action)> {
    let mut members = Vec::new();
    for column in columns {
        let name = column.field.name();
        let index = leaves.len();
        let slot = u16::try_from(index).expect("a schema has fewer than 65,536 fields");
        let path = format!("{prefix}{name}");
        let digits = if let Kind::Timestamp { digits } = column.kind { digits } else { 0 };
        let minute = Minute::new(digits);
        leaves.push(Leaf { path: path.clone(), kind: column.kind, subtree_end: index + 1, minute });
        let action = match (&column.data, column.kind) {
            (Data::Struct(children), _) => {
                let object = objects.len();
                objects.push(Object::new(Vec::new()));
                objects[object] = Object::new(self::members(children, &format!("{path}."), objects, leaves));
                leaves[index].subtree_end = leaves.len();
                Action::Object { slot, object: object as u16 }
            }
            (_, Kind::Int { .. }) => Action::Leaf { slot, fast: Fast::Integer },
            (_, Kind::Text) => Action::Leaf { slot, fast: Fast::Text },
            (_, Kind::Timestamp { .. }) => Action::Leaf { slot, fast: Fast::Timestamp },
            _ => Action::Leaf { slot, fast: Fast::None },
        };
        members.push((name.clone(), action));
    }
    members
}
