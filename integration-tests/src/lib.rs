//! What the tests, the demo and the benches share: running the program, and comparing results.
//!
//! [`compare`] says whether two results hold the same rows; [`program`] builds and runs `highwater` as a user would.
//! This crate knows no operator and no connector: it sees files, rows as JSON, and exit codes.

pub mod compare;
pub mod program;
pub mod rest;
