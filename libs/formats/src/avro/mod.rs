//! Avro messages: one record behind the id of its schema, as the Confluent serializers write them.
//!
//! A message is `0x00`, the id (four bytes, big-endian), then the record in Avro's binary encoding. The schema that it was written with is
//! known elsewhere, mostly in a schema registry; [`MessageDecoder`] says which ids it needs and is told the texts, so nothing here does I/O.
//! Writer schemas are resolved to the columns of the table by name, once per schema: a field that no column needs is skipped, and
//! a type that a column cannot take is refused with the names of both.
//!
//! Why not arrow-avro's decoder: a record that fails half-way leaves its parts in the columns; `array<null>` makes 13 bytes into 2^31 items;
//! and it does not tell which column a refusal is about. It is the oracle of the tests instead.
//!
//! Definitions: <https://avro.apache.org/docs/1.12.0/specification/>; framing:
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>.

mod decoder;
mod encoder;
mod plan;
mod schema;
mod wire;

pub use decoder::{MessageDecoder, SCHEMA_NEEDED, schema_id};
pub use encoder::{MessageEncoder, derived_schema};

/// Levels of records, arrays, maps and unions that a schema or a record may nest.
pub const MAX_DEPTH: usize = 256;

/// Longer texts of schemas are refused.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Bytes that the texts of a record's enums may have: on the wire each is a byte or two, however long its name is.
pub(crate) const MAX_EXPANDED_BYTES: usize = 64 << 20;

/// Bytes before the record: a zero and the id.
pub(crate) const FRAME_BYTES: usize = 5;
