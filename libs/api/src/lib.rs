//! The public REST types.
