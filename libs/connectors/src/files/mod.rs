//! Files: Parquet, JSON lines and CSV, local or on S3.

mod check;
pub(crate) mod columns;
mod encode;
mod error;
mod listing;
pub mod manifest;
mod parquet;
mod reach;
mod sink;
mod source;
mod staging;
pub mod store;
#[cfg(test)]
mod tests;
mod text;
mod upload;

pub use check::{check_sink, check_source};
pub use error::FileError;
pub use reach::{Reach, reachable};
pub(crate) use reach::{allowed, refused};
pub use sink::FilesystemSink;
pub use source::{Decoded, Events, FilesystemSource};
pub use store::{AllowedRoots, Location, Store};
pub(crate) use text::timestamp_format;
