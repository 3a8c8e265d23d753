//! Stages to operators.

use expr::Env;

pub type SplitNames = std::sync::Arc<dyn Fn(u32) -> (String, String) + Send + Sync>;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Stateless};
use crate::plan::{Stage, Step};

/// An operator and how it is driven.
pub enum Made {
    Stateless(Box<dyn Stateless>),
    Operator(Box<dyn Operator>),
}

pub fn make(stage: &Stage, _env: &Env, _worker: usize, _names: &SplitNames) -> Result<Made> {
    Err(RunError::internal(format!("{} has no operator", stage.operator)))
}

pub fn steps(_steps: &[Step], _input: &graph::Schema, _env: &Env, operator: &str) -> Result<Box<dyn Stateless>> {
    Err(RunError::internal(format!("{operator} has no operator")))
}
