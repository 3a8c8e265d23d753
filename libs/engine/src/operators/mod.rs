//! The operators: synchronous, one idea per file, free of any engine.

pub mod factory;
pub mod groups;
pub mod ledger;
pub mod panes;
mod parts;
mod results;
mod saved;
pub mod steps;
#[cfg(test)]
mod testing;
mod times;
pub mod window_aggregate;
pub mod window_assign;
pub mod window_expand;
pub mod window_partial;
