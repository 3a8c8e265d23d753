//! A bound on the parser's work.
//!
//! The parser tries some forms in two ways (`EXTRACT(...)` as the form, then as a call of a function of that name), and what is inside is
//! read in both. Nested n deep, a text with an error at its heart takes 2^n steps. So the steps are counted, and beyond a number that no
//! sensible text comes near the text is refused as nesting too deep.

use std::cell::Cell;

use datafusion_sql::sqlparser::parser::ParserError;

/// Expressions begun per token: a text without errors needs a handful.
const STEPS_PER_TOKEN: usize = 64;

thread_local! {
    /// Steps left to the parser that this thread runs.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Runs a parser over so many tokens; it fails with `RecursionLimitExceeded` when it takes too many steps.
pub fn bounded<T>(tokens: usize, parse: impl FnOnce() -> T) -> T {
    let before = LEFT.replace(tokens.saturating_add(16).saturating_mul(STEPS_PER_TOKEN));
    let parsed = parse();
    LEFT.set(before);
    parsed
}

/// One more expression is begun.
pub fn step() -> Result<(), ParserError> {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    if left == 0 { Err(ParserError::RecursionLimitExceeded) } else { Ok(()) }
}
