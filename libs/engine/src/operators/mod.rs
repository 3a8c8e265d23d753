//! The operators: synchronous, one idea per file, free of any engine.

pub mod aggregate;
#[cfg(test)]
mod aggregate_tests;
pub mod disk;
mod disk_aggregate;
mod disk_fold;
mod disk_session;
#[cfg(test)]
mod disk_session_tests;
#[cfg(test)]
mod disk_testing;
#[cfg(test)]
mod disk_tests;
mod disk_window;
#[cfg(test)]
mod disk_window_tests;
pub mod factory;
pub mod groups;
pub mod ledger;
mod pane_copies;
pub mod panes;
mod parts;
mod places;
mod results;
#[cfg(test)]
mod row_tests;
mod saved;
pub mod session;
#[cfg(test)]
mod session_tests;
pub mod sort;
pub mod steps;
#[cfg(test)]
mod testing;
pub(crate) mod times;
mod touched;
pub mod window_aggregate;
pub mod window_assign;
pub mod window_expand;
pub mod window_partial;
#[cfg(test)]
mod window_tests;
