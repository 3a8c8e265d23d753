//! Both stores keep the same contract, and keep it through kills.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[macro_use]
mod conformance;
mod durability;
mod epochs;
mod fixtures;
mod postgres;
mod savepoints;
mod sqlite;
