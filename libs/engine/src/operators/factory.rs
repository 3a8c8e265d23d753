//! Stages to operators.

use expr::{Env, arrow_schema};

use super::ledger::SplitNames;
use super::steps::Steps;
use super::window_aggregate::WindowAggregate;
use super::window_assign::WindowAssign;
use super::window_expand::WindowExpand;
use super::window_partial::WindowPartial;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Stateless};
use crate::plan::{Plan, StageKind};

/// An operator and how it is driven.
pub enum Made {
    Stateless(Box<dyn Stateless>),
    Operator(Box<dyn Operator>),
}

/// Makes the operator of the stage at `position` for a worker.
pub fn make(plan: &Plan, position: usize, env: &Env, worker: usize, names: &SplitNames) -> Result<Made> {
    let stage = &plan.stages[position];
    let input = || &plan.stages[stage.inputs[0].stage].schema;
    let first = worker == 0;
    let stateless = |made: Box<dyn Stateless>| Ok(Made::Stateless(made));
    let operator = |made: Box<dyn Operator>| Ok(Made::Operator(made));
    match &stage.kind {
        StageKind::Steps(steps) => stateless(Box::new(Steps::new(steps, input(), env, &stage.operator, names.clone())?)),
        StageKind::WindowExpand(spec) => stateless(Box::new(WindowExpand::new(spec, arrow_schema(&stage.schema), names.clone()))),
        StageKind::WindowAssign(spec) => {
            stateless(Box::new(WindowAssign::new(spec.clone(), &arrow_schema(input()), names.clone())))
        }
        StageKind::WindowPartial(spec) => operator(Box::new(WindowPartial::new(spec)?)),
        StageKind::WindowAggregate(spec) => operator(Box::new(WindowAggregate::new(spec, first)?)),
        _ => Err(RunError::internal(format!("{} is no operator", stage.operator))),
    }
}
