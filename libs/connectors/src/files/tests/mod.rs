//! Files are read exactly, resumed exactly, and damage is an error.
#![allow(clippy::unwrap_used)]

mod csv;
mod damage;
mod sinks;
mod sources;
