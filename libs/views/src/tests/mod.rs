//! Views against plain models of them, by chance, and what must survive being stopped.
#![allow(clippy::unwrap_used)]

mod files;
mod fold;
mod query;
mod speed;
