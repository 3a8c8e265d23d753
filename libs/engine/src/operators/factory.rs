//! Stages to operators.

use std::sync::Arc;

use expr::Env;
use state::{KEY_GROUPS, key_groups, key_hashes, owner};

use super::aggregate::{Aggregate, AggregatePartial};
use super::disk::Disk;
use super::disk_aggregate::DiskAggregate;
use super::disk_fold::DiskFold;
pub use super::ledger::SplitNames;
use super::session::SessionAggregate;
use super::sort::Sort;
use super::steps::{CompiledStep, Steps};
use super::window_aggregate::WindowAggregate;
use super::window_assign::WindowAssign;
use super::window_expand::WindowExpand;
use super::window_partial::WindowPartial;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Stateless};
use crate::plan::{AggregateSpec, Stage, StageKind, Step};

/// An operator and how it is driven.
pub enum Made {
    Stateless(Box<dyn Stateless>),
    Operator(Box<dyn Operator>),
}

/// Where an operator is built.
#[derive(Clone)]
pub struct Place {
    pub worker: usize,
    pub workers: usize,
    /// For state that is not kept in memory.
    pub disk: Option<Arc<Disk>>,
}

impl Place {
    /// Whether this worker owns what has no key.
    fn owns_global(&self) -> bool {
        let group = key_groups(&key_hashes(&[], 1), KEY_GROUPS)[0];
        owner(group, self.workers) == self.worker
    }
}

/// The operator of a stage; `input` has the columns of its (first) input.
pub fn make(stage: &Stage, input: &graph::Schema, env: &Env, place: &Place, names: &SplitNames) -> Result<Made> {
    let schema = || expr::arrow_schema(&stage.schema);
    let disk = || place.disk.clone().filter(|_| stage.kind.may_be_on_disk());
    let operator = &stage.operator;
    let made: Box<dyn Operator> = match &stage.kind {
        StageKind::Steps(parts) => return Ok(Made::Stateless(steps(parts, input, env, operator, names)?)),
        StageKind::WindowExpand(spec) => {
            return Ok(Made::Stateless(Box::new(WindowExpand::new(spec, schema(), names.clone()))));
        }
        StageKind::WindowAssign(spec) => {
            return Ok(Made::Stateless(Box::new(WindowAssign::new(spec.clone(), schema(), names.clone()))));
        }
        StageKind::WindowPartial(spec) => Box::new(WindowPartial::new(spec).map_err(|e| e.operator(operator))?),
        StageKind::WindowAggregate(spec) => {
            Box::new(WindowAggregate::new(spec, disk()).map_err(|e| e.operator(operator))?)
        }
        StageKind::SessionAggregate(spec) => {
            Box::new(SessionAggregate::new(spec, names.clone(), disk()).map_err(|e| e.operator(operator))?)
        }
        StageKind::Partial(spec) => Box::new(AggregatePartial::new(spec).map_err(|e| e.operator(operator))?),
        StageKind::Aggregate(spec) => aggregate(spec, place).map_err(|e| e.operator(operator))?,
        StageKind::Sort(spec) => Box::new(Sort::new(spec.clone(), place.worker == 0)),
        StageKind::Source(_) | StageKind::Union | StageKind::Sink(_) => {
            return Err(RunError::internal(format!("the stage of {operator} is not an operator")));
        }
    };
    Ok(Made::Operator(made))
}

fn aggregate(spec: &AggregateSpec, place: &Place) -> Result<Box<dyn Operator>> {
    Ok(match place.disk.clone().filter(|_| spec.keys > 0) {
        None => Box::new(Aggregate::new(spec.clone(), place.owns_global())?),
        Some(disk) if spec.bounded && !spec.retracts => Box::new(DiskFold::new(spec, disk)?),
        Some(disk) => Box::new(DiskAggregate::new(spec.clone(), disk)?),
    })
}

/// Compiles fused steps over the columns of `input`.
pub fn steps(
    steps: &[Step],
    input: &graph::Schema,
    env: &Env,
    operator: &str,
    names: &SplitNames,
) -> Result<Box<dyn Stateless>> {
    let compile = |text: &str, schema: &graph::Schema| {
        expr::compile(text, schema, env)
            .map_err(|error| RunError::internal(format!("cannot compile {text}: {error}")).operator(operator))
    };
    let mut schema = input.clone();
    let mut compiled = Vec::with_capacity(steps.len());
    for step in steps {
        compiled.push(match step {
            Step::Filter(predicate) => CompiledStep::Filter(compile(predicate, &schema)?),
            Step::Project(columns, output) => {
                let columns = columns.iter().map(|column| compile(&column.expr, &schema)).collect::<Result<_>>()?;
                schema = output.clone();
                CompiledStep::Project(columns, expr::arrow_schema(output))
            }
        });
    }
    Ok(Box::new(Steps::new(operator, compiled, names.clone())))
}
