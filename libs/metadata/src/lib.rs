//! What must not be forgotten: jobs, versions, runs, epochs, savepoints, operations, connections, keys, audit.
//!
//! [`MetadataStore`] is the contract that [`sqlite`] and [`postgres`] keep; one suite of tests holds both to it. Every change is one
//! transaction: the rows, its line in the audit log and, where the request carried a key, its stored answer. A method that returns `Ok`
//! survives a kill of this process and of the database's; one that returns an error happened whole or not at all. Changes of state
//! are compare-and-set. This crate knows nothing of HTTP, graphs or processes: what others define is JSON here.

mod records;
mod store;

mod error;
mod migrations;
mod queries;
mod session;
mod shared;

pub mod postgres;
pub mod sqlite;

pub use error::DISK_FULL;
pub use queries::audit::verify_audit;
pub use records::*;
pub use store::{Fence, MetadataError, MetadataStore, Result};
