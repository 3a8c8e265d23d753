//! Both stores keep the same contract, and keep it through kills.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod conformance;
mod durability;
mod fixtures;
mod postgres;
mod sqlite;
