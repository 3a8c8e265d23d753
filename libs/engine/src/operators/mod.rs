//! The operators: synchronous, one idea per file, free of any engine.

pub mod panes;
