//! Which columns of each node's output are read by anyone: what nobody reads is not computed, moved or decoded.

use std::collections::{BTreeMap, BTreeSet};

use expr::Analysis;
use graph::{AggregateCall, AggregateFunction, Graph, NamedExpr, Node, Operator, Window};

use crate::error::{Result, RunError};

/// Positions of the needed columns of each node's output, by node id.
pub type Needed = BTreeMap<String, BTreeSet<usize>>;

pub fn needed(graph: &Graph, analysis: &Analysis, env: &expr::Env) -> Result<Needed> {
    let order = graph.ordered().ok_or_else(|| RunError::internal("a checked graph has no cycle"))?;
    let ledgers: BTreeSet<&str> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.operator, Operator::LateRows(_)))
        .flat_map(|node| node.inputs.iter().map(String::as_str))
        .collect();
    let letters = graph.nodes.iter().any(|node| matches!(node.operator, Operator::DeadLetters(_)));
    let mut needed: Needed = graph.nodes.iter().map(|node| (node.id.clone(), BTreeSet::new())).collect();
    for index in order.into_iter().rev() {
        let node = &graph.nodes[index];
        if matches!(node.operator, Operator::LateRows(_) | Operator::DeadLetters(_)) {
            continue; // They read side outputs, whose columns are fixed.
        }
        for input in &node.inputs {
            let facts = &analysis.facts[input];
            let order = facts.order.as_deref();
            let mut reads = Reads { schema: &facts.schema, order, env, columns: BTreeSet::new() };
            // A row that goes to a ledger or to the dead letters goes there whole.
            let whole = match &node.operator {
                Operator::Watermark(watermark) => {
                    let guarded = watermark.max_ahead.is_some() || !analysis.bounded;
                    letters && (guarded || watermark.on_null == graph::OnBad::DeadLetter)
                }
                _ => ledgers.contains(node.id.as_str()),
            };
            reads.of(node, &needed[&node.id], whole, analysis.bounded)?;
            let columns = reads.columns;
            needed.entry(input.clone()).or_default().extend(columns);
        }
    }
    Ok(needed)
}

/// Whether rows that have no usable event time are dealt with: where anything reads the time, or the table says what is to happen to
/// such rows.
/// A query that looks at the time nowhere is not failed by it.
pub fn judged(watermark: &graph::Watermark, schema: &graph::Schema, needed: &BTreeSet<usize>) -> bool {
    let read = schema.index_of(&watermark.column).is_some_and(|column| needed.contains(&column));
    read || watermark.on_null != graph::OnBad::Fail || watermark.max_ahead.is_some()
}

/// What a node reads of one input.
struct Reads<'a> {
    schema: &'a graph::Schema,
    /// By what first and last values go.
    order: Option<&'a str>,
    env: &'a expr::Env,
    columns: BTreeSet<usize>,
}

impl Reads<'_> {
    fn of(&mut self, node: &Node, output: &BTreeSet<usize>, whole: bool, bounded: bool) -> Result<()> {
        match &node.operator {
            Operator::Source(_) | Operator::LateRows(_) | Operator::DeadLetters(_) => Ok(()),
            Operator::Sink(_) => self.all(),
            Operator::Project(project) => {
                output.iter().try_for_each(|column| self.expr(&project.columns[*column].expr))
            }
            Operator::Filter(filter) => {
                self.columns.extend(output);
                self.expr(&filter.predicate)
            }
            Operator::Union(_) => {
                self.columns.extend(output);
                Ok(())
            }
            Operator::Watermark(_) if whole => self.all(),
            Operator::Watermark(watermark) => {
                self.columns.extend(output);
                // A bounded run takes its watermarks from elsewhere.
                if bounded && !judged(watermark, self.schema, output) { Ok(()) } else { self.name(&watermark.column) }
            }
            Operator::WindowAssign(_) if whole => self.all(),
            Operator::WindowAssign(assign) => {
                self.columns.extend(output.iter().filter(|column| **column < self.schema.columns.len()));
                self.window(&assign.window)
            }
            Operator::WindowAggregate(_) if whole => self.all(),
            Operator::WindowAggregate(aggregate) => {
                self.window(&aggregate.window)?;
                self.aggregate(&aggregate.keys, &aggregate.aggregates)
            }
            Operator::Aggregate(aggregate) => self.aggregate(&aggregate.keys, &aggregate.aggregates),
            Operator::Sort(sort) => {
                self.columns.extend(output);
                sort.by.iter().try_for_each(|key| self.expr(&key.expr))
            }
        }
    }

    fn all(&mut self) -> Result<()> {
        self.columns.extend(0..self.schema.columns.len());
        Ok(())
    }

    fn window(&mut self, window: &Window) -> Result<()> {
        match window {
            Window::Tumble { time, .. }
            | Window::Hop { time, .. }
            | Window::Cumulate { time, .. }
            | Window::Session { time, .. } => self.name(time),
            Window::Attached {} => ["window_start", "window_end"].iter().try_for_each(|name| self.name(name)),
        }
    }

    fn aggregate(&mut self, keys: &[NamedExpr], calls: &[AggregateCall]) -> Result<()> {
        keys.iter().try_for_each(|key| self.expr(&key.expr))?;
        for call in calls {
            call.args.iter().chain(&call.filter).try_for_each(|text| self.expr(text))?;
            if matches!(call.function, AggregateFunction::FirstValue | AggregateFunction::LastValue)
                && let Some(order) = self.order
            {
                self.name(order)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<()> {
        let column =
            self.schema.index_of(name).ok_or_else(|| RunError::internal(format!("there is no column {name}")))?;
        self.columns.insert(column);
        Ok(())
    }

    fn expr(&mut self, text: &str) -> Result<()> {
        let compiled = expr::compile(text, self.schema, self.env)
            .map_err(|error| RunError::internal(format!("{text}: {error}")))?;
        self.columns.extend(compiled.columns());
        Ok(())
    }
}
