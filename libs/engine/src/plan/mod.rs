//! From graph to physical stages: pure, deterministic, easy to print.

mod stage;

pub use stage::*;
