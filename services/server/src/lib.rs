//! The service: REST over a metadata store and the processes of runs.
//!
//! [`serve`] opens the store, takes up the runs that the last server left, and answers until it is told to stop; the processes of runs go on.
//! `rest` has a file per resource; `attempts` follows runs; `planning` turns requests into graphs. This crate knows neither the
//! engine nor any connector: what touches files, networks or rows happens in processes of their own.

mod app;
mod attempts;
mod auth;
mod config;
pub mod document;
mod facts;
mod http;
mod inspect;
pub mod keys;
mod metrics;
mod paths;
mod planning;
mod problem;
mod rates;
mod rest;
mod retention;
mod sealing;
mod start;
mod time;

pub use auth::Caller;
pub use config::Config;
pub use problem::ApiError;
pub use start::{StartError, open_store, serve};
