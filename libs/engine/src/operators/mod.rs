//! The operators: synchronous, one idea per file, free of any engine.

pub mod aggregate;
pub mod factory;
pub mod groups;
pub mod ledger;
pub mod panes;
mod parts;
mod results;
mod saved;
pub mod session;
pub mod sort;
pub mod steps;
#[cfg(test)]
mod testing;
mod times;
pub mod window_aggregate;
pub mod window_assign;
pub mod window_expand;
pub mod window_partial;
#[cfg(test)]
mod window_tests;
