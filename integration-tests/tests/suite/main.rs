//! Everything that is tested from outside: one binary, because each one costs a link.
#![allow(clippy::unwrap_used)]

mod attempt;
mod bad_input;
mod cases;
mod duckdb;
mod flow;
mod fuzz;
mod kafka;
mod ledgers;
mod resaved;
mod rest;
mod restart;
mod s3;
mod support;
mod tidy;
