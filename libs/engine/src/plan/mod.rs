//! From graph to physical stages: pure, deterministic, easy to print.

mod columns;
mod lower;
mod print;
mod stage;

pub use lower::plan;
pub use stage::*;
