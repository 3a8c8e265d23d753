//! Generated input.

pub mod nexmark;
