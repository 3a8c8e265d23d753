//! Real servers for tests.
//!
//! A server is started on demand, once per test process, on a free port; it ends with the test process however that ends. Each test
//! takes a database, topics or a prefix of its own. What is missing fails the test with the line that installs it; nothing is skipped.

pub mod kafka;
pub mod postgres;
pub mod process;

pub mod registry;
