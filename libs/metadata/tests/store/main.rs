//! Both stores keep the same contract, and keep it through kills.

mod conformance;
mod durability;
mod fixtures;
mod postgres;
mod sqlite;
