//! Files: Parquet, JSON lines and CSV, local or on S3.

mod columns;
mod error;
mod listing;
pub mod manifest;
mod parquet;
mod source;
pub mod store;
#[cfg(test)]
mod tests;
mod text;

pub use error::FileError;
pub use source::FilesystemSource;
pub use store::{AllowedRoots, Location, Store};
