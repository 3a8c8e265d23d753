//! Filters and projections, fused into one stage.
//!
//! A filter on updating rows may keep one half of an update: a lone `-U` is then a `-D`, a lone `+U` a `+I`.

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow::datatypes::SchemaRef;
use expr::{Compiled, Env, EvalError};

use super::ledger::SplitNames;
use crate::batch::{Batch, RowKind};
use crate::error::{Result, RunError};
use crate::operator::{Output, Stateless};
use crate::plan::Step;

pub struct Steps {
    steps: Vec<Made>,
    operator: String,
    names: SplitNames,
}

enum Made {
    Filter(Compiled),
    Project(Vec<Compiled>, SchemaRef),
}

impl Steps {
    /// Compiles the steps over the columns of `input`. `names` tells table and split in messages.
    pub fn new(steps: &[Step], input: &graph::Schema, env: &Env, operator: &str, names: SplitNames) -> Result<Steps> {
        let mut schema = input.clone();
        let mut compiled = Vec::new();
        for step in steps {
            let compile = |text: &str| expr::compile(text, &schema, env).map_err(|error| RunError::internal(format!("{text}: {error}")));
            compiled.push(match step {
                Step::Filter(predicate) => Made::Filter(compile(predicate)?),
                Step::Project(columns, output) => {
                    let columns = columns.iter().map(|column| compile(&column.expr)).collect::<Result<_>>()?;
                    schema = output.clone();
                    Made::Project(columns, expr::arrow_schema(output))
                }
            });
        }
        Ok(Steps { steps: compiled, operator: operator.to_string(), names })
    }

    fn failed(&self, batch: &Batch, error: EvalError) -> RunError {
        let mut place = String::new();
        if let Some(row) = error.row {
            let text = crate::runtime::row_json(&batch.rows.slice(row, 1)).unwrap_or_default();
            let short: String = text.chars().take(200).collect();
            place = format!(", at the row {short}");
            if let Some(origin) = &batch.origin {
                let (table, split) = (self.names)(origin.splits.value(row));
                place = format!("{place} (table {table}, split {split}, record {})", origin.positions.value(row));
            }
        }
        RunError::user("expression_failed", format!("{}{place}", error.message))
            .hint("use TRY_CAST, CASE or a filter to keep such rows out of the expression")
            .operator(&self.operator)
    }
}

impl Stateless for Steps {
    fn map(&mut self, mut batch: Batch, _wm: i64, out: &mut Output) -> Result<()> {
        for step in &self.steps {
            match step {
                Made::Filter(predicate) => {
                    let mask = predicate.evaluate_filter(&batch.rows).map_err(|error| self.failed(&batch, error))?;
                    let kept = mask.true_count();
                    out.counters.filtered += (batch.num_rows() - kept) as u64;
                    if kept == 0 {
                        return Ok(());
                    }
                    if kept < batch.num_rows() {
                        batch = filtered(batch, &mask)?;
                    }
                }
                Made::Project(columns, schema) => {
                    let evaluated = columns.iter().map(|column| column.evaluate(&batch.rows)).collect::<Result<Vec<_>, _>>();
                    let columns = evaluated.map_err(|error| self.failed(&batch, error))?;
                    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
                    batch.rows = rows;
                }
            }
        }
        out.send(batch);
        Ok(())
    }
}

fn filtered(mut batch: Batch, mask: &BooleanArray) -> Result<Batch> {
    if let Some(kinds) = &batch.kinds {
        batch.kinds = Some(mended(kinds, mask));
    }
    Ok(batch.filter(mask)?)
}

/// The kinds of the rows that pass, where halves of updates stand alone.
fn mended(kinds: &UInt8Array, mask: &BooleanArray) -> UInt8Array {
    let (before, after) = (RowKind::UpdateBefore as u8, RowKind::UpdateAfter as u8);
    let mut kinds = kinds.values().to_vec();
    for row in 1..kinds.len() {
        if kinds[row - 1] == before && kinds[row] == after && mask.value(row - 1) != mask.value(row) {
            kinds[row - 1] = RowKind::Delete as u8;
            kinds[row] = RowKind::Insert as u8;
        }
    }
    UInt8Array::from(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, Int64Array};
    use graph::{Column, DataType, NamedExpr, Schema};
    use std::sync::Arc;

    fn steps(steps: &[Step]) -> Steps {
        let input = Schema::new(vec![Column::new("a", DataType::BigInt, true), Column::new("b", DataType::BigInt, true)]);
        Steps::new(steps, &input, &Env::default(), "test", Arc::new(|_| ("t".into(), "s".into()))).expect("compiles")
    }

    fn rows(a: Vec<Option<i64>>, b: Vec<Option<i64>>) -> RecordBatch {
        let schema = expr::arrow_schema(&Schema::new(vec![Column::new("a", DataType::BigInt, true), Column::new("b", DataType::BigInt, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(a)) as ArrayRef, Arc::new(Int64Array::from(b))]).expect("two columns")
    }

    fn filter(text: &str) -> Step {
        Step::Filter(text.into())
    }

    #[test]
    fn filters_and_projections_follow_one_another() {
        let columns = vec![NamedExpr { name: "c".into(), expr: "a + b".into() }];
        let output = Schema::new(vec![Column::new("c", DataType::BigInt, true)]);
        let mut stage = steps(&[filter("a > 1"), Step::Project(columns, output), filter("c < 40")]);
        let mut out = Output::new();
        let input = rows(vec![Some(1), Some(2), None, Some(4), Some(5)], vec![Some(10), Some(20), Some(30), Some(40), None]);
        stage.map(Batch::inserts(input), 0, &mut out).expect("runs");
        let result = out.take();
        assert_eq!(result[0].rows.column(0).as_ref(), &Int64Array::from(vec![22]) as &dyn Array);
        assert_eq!(out.counters.filtered, 4);
    }

    #[test]
    fn a_lone_half_of_an_update_is_a_delete_or_an_insert() {
        let mut stage = steps(&[filter("a > 10")]);
        let input = rows((0..6).map(|a| Some([5, 15, 15, 5, 15, 16][a])).collect(), vec![None; 6]);
        let mut out = Output::new();
        stage.map(Batch::changes(input, UInt8Array::from(vec![1, 2, 1, 2, 1, 2])), 0, &mut out).expect("runs");
        let result = out.take();
        let marks: Vec<&str> = (0..result[0].num_rows()).map(|row| result[0].kind(row).mark()).collect();
        assert_eq!(marks, ["+I", "-D", "-U", "+U"]);
    }

    #[test]
    fn an_error_names_the_row() {
        let columns = vec![NamedExpr { name: "c".into(), expr: "a / b".into() }];
        let output = Schema::new(vec![Column::new("c", DataType::BigInt, true)]);
        let mut stage = steps(&[Step::Project(columns, output)]);
        let input = rows(vec![Some(1), Some(2), Some(3)], vec![Some(1), Some(0), Some(0)]);
        let error = stage.map(Batch::inserts(input), 0, &mut Output::new()).expect_err("division by zero");
        assert!(error.message.contains("\"a\":2") && error.code == "expression_failed", "{error}");
    }
}
