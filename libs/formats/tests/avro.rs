//! placeholder
use formats::avro::MessageDecoder;
#[test]
fn t() { let _ = MessageDecoder::new(std::sync::Arc::new(arrow::datatypes::Schema::empty())); }
