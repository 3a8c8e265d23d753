//! Bytes to Arrow batches and back.
//!
//! [`RecordDecoder`] and [`RecordEncoder`] are the contracts of the record formats: [`json`] (JSON lines, or one object per message),
//! [`csv`] and [`avro`] (messages of a schema registry). Decoders take only the needed columns, report each bad record by itself, and never lose a good one for it.
//! [`text`] has the one definition of how texts become values, for all formats.
//! This crate knows nothing of files, sockets or graphs: where the bytes come from is the caller's.

mod columns;
mod decoder;
mod feed;
mod values;

#[cfg(test)]
mod testing;

pub mod avro;
pub mod conformance;
pub mod csv;
pub mod json;
pub mod text;

pub use decoder::{
    BadRecord, DEFAULT_MAX_RECORD_BYTES, Decoded, FULL, FormatError, MAX_BAD_PAYLOAD_BYTES, Progress, RecordDecoder,
    RecordEncoder, RecordNumbers, Stopped,
};
