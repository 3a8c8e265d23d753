//! Graph nodes to stages: fuses filters and projections, reads only what is needed, places exchanges, splits aggregates before them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use expr::{Analysis, Changelog, Env};
use graph::{
    AggregateCall, AggregateFunction, Column, DataType, Graph, NamedExpr, Node, Operator, Schema, Settings, Window,
    quoted,
};

use super::columns::{Needed, judged, needed};
use super::stage::*;
use crate::error::{Result, RunError};

/// Plans a graph for a number of workers. The graph has been checked; what is wrong with it otherwise is the error.
pub fn plan(graph: &Graph, settings: &Settings, workers: usize) -> Result<Plan> {
    let analysis = expr::analyze(graph, settings).map_err(|problems| {
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        RunError::user("invalid_graph", format!("the graph cannot run: {text}"))
    })?;
    let env = Env { now_us: Arc::new(AtomicI64::new(0)), overflow_wrap: settings.overflow_wrap };
    let needed = needed(graph, &analysis, &env)?;
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| !reads_side(node)) {
        node.inputs.iter().for_each(|input| *readers.entry(input).or_default() += 1);
    }
    let mut lower = Lower {
        graph,
        analysis: &analysis,
        needed: &needed,
        env: &env,
        workers,
        readers,
        stages: Vec::new(),
        built: BTreeMap::new(),
        sides: BTreeMap::new(),
    };
    for index in graph.ordered().ok_or_else(|| RunError::internal("a checked graph has no cycle"))? {
        lower.node(&graph.nodes[index])?;
    }
    Ok(Plan { stages: lower.stages, bounded: analysis.bounded })
}

fn reads_side(node: &Node) -> bool {
    matches!(node.operator, Operator::LateRows(_) | Operator::DeadLetters(_))
}

/// A node's output so far: a stage, and steps that are still to be fused into whatever reads it.
#[derive(Clone)]
struct Built {
    stage: usize,
    steps: Vec<Step>,
    /// Columns after the steps.
    schema: Schema,
    updating: bool,
}

struct Lower<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    needed: &'a Needed,
    env: &'a Env,
    workers: usize,
    /// How many nodes read each node's main output.
    readers: BTreeMap<&'a str, usize>,
    stages: Vec<Stage>,
    built: BTreeMap<&'a str, Built>,
    /// The stage whose side output has the late rows or dead letters of a node.
    sides: BTreeMap<&'a str, usize>,
}

impl<'a> Lower<'a> {
    fn node(&mut self, node: &'a Node) -> Result<()> {
        if self.built.contains_key(node.id.as_str()) {
            return Ok(()); // Already part of its source's stage.
        }
        let built = match &node.operator {
            Operator::Source(source) => return self.source(node, source),
            Operator::Project(project) => {
                let input = self.input(node)?;
                let columns = self.needed[&node.id].iter().map(|column| project.columns[*column].clone()).collect();
                self.project(input, columns)?
            }
            Operator::Filter(filter) => {
                let mut input = self.input(node)?;
                input.steps.push(Step::Filter(filter.predicate.clone()));
                input
            }
            Operator::Union(_) => self.union(node)?,
            Operator::Watermark(_) => return Err(RunError::internal("a watermark follows a source")),
            Operator::WindowAssign(assign) => self.window_assign(node, &assign.window)?,
            Operator::WindowAggregate(aggregate) => match &aggregate.window {
                Window::Session { time, gap } => self.session(node, aggregate, time, gap.us)?,
                _ => self.window_aggregate(node, aggregate)?,
            },
            Operator::Aggregate(aggregate) => self.aggregate(node, aggregate)?,
            Operator::Sort(sort) => self.sort(node, sort)?,
            Operator::Sink(sink) => return self.sink(node, sink),
            Operator::LateRows(_) | Operator::DeadLetters(_) => self.side(node)?,
        };
        let mut built = built;
        if self.readers.get(node.id.as_str()).copied().unwrap_or(0) > 1 {
            built = self.settled(built, &node.id); // Computed once, read by several.
        }
        self.built.insert(&node.id, built);
        Ok(())
    }

    /// What the node reads, taken out if nothing else reads it: kept at every node of a chain, the steps would be a square of its length.
    fn input(&mut self, node: &Node) -> Result<Built> {
        let id = node.inputs[0].as_str();
        let built = match self.readers.get(id) {
            Some(1) => self.built.remove(id),
            _ => self.built.get(id).cloned(),
        };
        built.ok_or_else(|| RunError::internal("inputs are planned before their readers"))
    }

    fn push(&mut self, operator: &str, kind: StageKind, inputs: Vec<Edge>, schema: Schema, updating: bool) -> usize {
        let before = |edge: &Edge| &self.stages[edge.stage];
        let stateless_before = inputs.iter().map(before).all(|input| !input.kind.has_state() && input.stateless_before);
        self.stages.push(Stage { operator: operator.to_string(), kind, inputs, schema, updating, stateless_before });
        self.stages.len() - 1
    }

    /// The stage that has the output itself, with the pending steps as a stage of their own if there are any.
    fn settled(&mut self, built: Built, id: &str) -> Built {
        if built.steps.is_empty() {
            return built;
        }
        let input = Edge { stage: built.stage, side: false, route: Route::Local };
        let stage = self.push(id, StageKind::Steps(built.steps), vec![input], built.schema.clone(), built.updating);
        Built { stage, steps: Vec::new(), schema: built.schema, updating: built.updating }
    }

    fn edge(&mut self, built: Built, id: &str, route: Route) -> Edge {
        let stage = self.settled(built, id).stage;
        Edge { stage, side: false, route: if self.workers == 1 { Route::Local } else { route } }
    }

    fn compile(&self, text: &str, schema: &Schema) -> Result<expr::Compiled> {
        expr::compile(text, schema, self.env).map_err(|error| RunError::internal(format!("{text}: {error}")))
    }

    fn project(&self, mut input: Built, columns: Vec<NamedExpr>) -> Result<Built> {
        let mut schema = Schema::default();
        for column in &columns {
            let compiled = self.compile(&column.expr, &input.schema)?;
            schema.columns.push(Column::new(&column.name, compiled.data_type().clone(), compiled.nullable()));
        }
        input.steps.push(Step::Project(columns, schema.clone()));
        Ok(Built { schema, ..input })
    }

    /// A source, and what stands between it and its watermark.
    fn source(&mut self, node: &'a Node, source: &graph::Source) -> Result<()> {
        let physical = Schema::new(source.columns.clone());
        let read = self.pruned(&node.id, &physical);
        let mut chain: Vec<&'a Node> = vec![node];
        let watermark = loop {
            let last = chain[chain.len() - 1];
            let mut next =
                self.graph.nodes.iter().filter(|reader| !reads_side(reader) && reader.inputs.contains(&last.id));
            match (next.next(), next.next()) {
                (Some(reader), None) => match &reader.operator {
                    Operator::Project(_) | Operator::Filter(_) => chain.push(reader),
                    Operator::Watermark(watermark) => {
                        chain.push(reader);
                        break Some(watermark);
                    }
                    _ => break None,
                },
                _ => break None,
            }
        };
        if watermark.is_none() {
            chain.truncate(1);
        }
        let mut built = Built { stage: self.stages.len(), steps: Vec::new(), schema: read.clone(), updating: false };
        for link in &chain[1..] {
            match &link.operator {
                Operator::Filter(filter) => built.steps.push(Step::Filter(filter.predicate.clone())),
                Operator::Project(project) => {
                    let columns = self.needed[&link.id].iter().map(|column| project.columns[*column].clone()).collect();
                    built = self.project(built, columns)?;
                }
                _ => {}
            }
        }
        let last = chain[chain.len() - 1];
        let time = match watermark.map(|watermark| (watermark, built.schema.index_of(&watermark.column))) {
            Some((watermark, Some(column))) => {
                let unit_us = built.schema.columns[column].data_type.time_unit_us();
                let live =
                    !source.connector.is_bounded() && !matches!(source.connector, graph::SourceConnector::Replay(_));
                let facts = &self.analysis.facts[&last.id].schema;
                Some(SourceTime {
                    column,
                    judged: judged(watermark, facts, &self.needed[&last.id]),
                    read_column: read_as_is(&watermark.column, &built.steps),
                    unit_us: unit_us.ok_or_else(|| RunError::internal("the time attribute's precision was checked"))?,
                    delay_us: watermark.delay.us,
                    idle_timeout_us: watermark.idle_timeout.map(|timeout| timeout.us),
                    max_ahead_us: watermark.max_ahead.map(|most| most.us).or(live.then_some(3_600_000_000)),
                    on_null: watermark.on_null,
                })
            }
            // Nothing looks at the time.
            _ => None,
        };
        let letters = self
            .graph
            .nodes
            .iter()
            .any(|reader| matches!(reader.operator, Operator::DeadLetters(_)) && reader.inputs.contains(&node.id));
        let origin = letters || self.graph.nodes.iter().any(|node| matches!(node.operator, Operator::LateRows(_)));
        let pushed = if self.analysis.bounded { self.pushed(last, &read, &built.steps)? } else { Vec::new() };
        let (prelude, schema) = (std::mem::take(&mut built.steps), built.schema.clone());
        let stage = SourceStage { node: source.clone(), read, pushed, prelude, time, origin };
        let position = self.push(&node.id, StageKind::Source(stage), Vec::new(), schema, false);
        if letters {
            self.sides.insert(&node.id, position);
        }
        for link in chain {
            self.built.insert(&link.id, built.clone());
        }
        Ok(())
    }

    /// The needed columns; at least one, so that rows can be counted.
    fn pruned(&self, id: &str, schema: &Schema) -> Schema {
        let mut columns: BTreeSet<usize> = self.needed[id].clone();
        if columns.is_empty() {
            let narrow = schema
                .columns
                .iter()
                .position(|column| column.data_type.is_numeric() || column.data_type.is_timestamp());
            columns.insert(narrow.unwrap_or(0));
        }
        Schema::new(columns.into_iter().map(|column| schema.columns[column].clone()).collect())
    }

    /// Conditions that a bounded source may use to skip rows: those of filters in its prelude or directly after it.
    fn pushed(&self, last: &Node, read: &Schema, prelude: &[Step]) -> Result<Vec<crate::source::Pushed>> {
        let mut predicates: Vec<&str> = Vec::new();
        let mut renamed = false;
        for step in prelude {
            match step {
                Step::Filter(predicate) if !renamed => predicates.push(predicate),
                Step::Filter(_) => {}
                Step::Project(columns, _) => {
                    renamed |= columns
                        .iter()
                        .any(|column| read.column(&column.name).is_some() && column.expr != quoted(&column.name))
                }
            }
        }
        // Behind a projection that renames, a name may mean another column.
        let mut following = (!renamed).then_some(last);
        while let Some(at) = following.take() {
            let mut readers =
                self.graph.nodes.iter().filter(|reader| !reads_side(reader) && reader.inputs.contains(&at.id));
            if let (Some(reader), None) = (readers.next(), readers.next())
                && let Operator::Filter(filter) = &reader.operator
            {
                predicates.push(&filter.predicate);
                following = Some(reader);
            }
        }
        let mut pushed = Vec::new();
        for predicate in predicates {
            for (column, op, literal) in expr::simple_conditions(predicate) {
                if read.column(&column).is_some() {
                    pushed.push(crate::source::Pushed { column, op, literal });
                }
            }
        }
        Ok(pushed)
    }

    fn union(&mut self, node: &'a Node) -> Result<Built> {
        let output = &self.analysis.facts[&node.id].schema;
        let columns: Vec<usize> = self.needed[&node.id].iter().copied().collect();
        let schema = Schema::new(columns.iter().map(|column| output.columns[*column].clone()).collect());
        let (mut edges, mut updating) = (Vec::new(), false);
        for input in &node.inputs {
            let built = self.built[input.as_str()].clone();
            let names: Vec<&str> = self.analysis.facts[input].schema.names().collect();
            let renames = columns.iter().zip(&schema.columns).map(|(from, to)| {
                let from = &self.analysis.facts[input].schema.columns[*from];
                NamedExpr {
                    name: to.name.clone(),
                    expr: cast_if_needed(&quoted(&from.name), &from.data_type, &to.data_type),
                }
            });
            let renames: Vec<NamedExpr> = renames.collect();
            let same = built.schema.columns.len() == schema.columns.len()
                && built.schema.names().eq(schema.names())
                && names.len() >= columns.len();
            let built = if same && renames.iter().all(|column| column.expr == quoted(&column.name)) {
                built
            } else {
                self.project(built, renames)?
            };
            updating |= built.updating;
            edges.push(self.edge(built, input, Route::Local));
        }
        let stage = self.push(&node.id, StageKind::Union, edges, schema.clone(), updating);
        Ok(Built { stage, steps: Vec::new(), schema, updating })
    }

    fn unit(&self, node: &Node) -> Result<i64> {
        let time = self.analysis.facts[&node.inputs[0]].time.as_ref();
        time.map(|time| time.unit_us).ok_or_else(|| RunError::internal("a window has a time attribute"))
    }

    fn has_ledger(&self, id: &str) -> bool {
        self.graph
            .nodes
            .iter()
            .any(|node| matches!(node.operator, Operator::LateRows(_)) && node.inputs.iter().any(|input| input == id))
    }

    /// By what first_value and last_value of a node go, if it has any.
    fn order(&self, node: &Node, calls: &[AggregateCall]) -> Option<&'a str> {
        // Without a time all rows tie.
        self.analysis.facts[&node.inputs[0]].order.as_deref().filter(|_| calls.iter().any(is_by_time))
    }

    fn window_assign(&mut self, node: &'a Node, window: &Window) -> Result<Built> {
        let input = self.input(node)?;
        let (windows, time) = windows(window)?;
        let spec = AssignSpec {
            time: input.schema.index_of(time).ok_or_else(|| RunError::internal("the time attribute is read"))?,
            unit: self.unit(node)?,
            windows,
            lateness: 0,
            keep: (0..input.schema.columns.len()).collect(),
            ledger: self.has_ledger(&node.id).then(|| ledger_row(&input.schema)),
            shown: ledger_row(&input.schema),
            operator: node.id.clone(),
        };
        let facts = &self.analysis.facts[&node.id].schema;
        let mut schema = input.schema.clone();
        schema.columns.extend(facts.columns[facts.columns.len() - 3..].iter().cloned());
        let (updating, ledger) = (input.updating, spec.ledger.is_some());
        let edge = self.edge(input, &format!("{}.input", node.id), Route::Local);
        let stage = self.push(&node.id, StageKind::WindowExpand(spec), vec![edge], schema.clone(), updating);
        if ledger {
            self.sides.insert(&node.id, stage);
        }
        Ok(Built { stage, steps: Vec::new(), schema, updating })
    }

    /// Projects an aggregate's input to: keys, then arguments and filters (each once), then the extra columns, then for the ledger those
    /// that are still missing.
    fn arguments(
        &self,
        node: &Node,
        input: Built,
        keys: &[NamedExpr],
        calls: &[AggregateCall],
        extra: &[&str],
    ) -> Result<Arguments> {
        let order = self.order(node, calls);
        let schema = input.schema.clone();
        let mut columns = keys.to_vec();
        let place = |text: &str, columns: &mut Vec<NamedExpr>| -> usize {
            let taken = columns.iter().skip(keys.len()).position(|column| column.expr == text);
            taken.map(|at| at + keys.len()).unwrap_or_else(|| {
                columns.push(NamedExpr { name: format!("${}", columns.len()), expr: text.to_string() });
                columns.len() - 1
            })
        };
        let mut places = Vec::new();
        for call in calls {
            let arg = call.args.first().map(|arg| place(arg, &mut columns));
            let filter = call.filter.as_ref().map(|filter| place(filter, &mut columns));
            places.push((arg, filter));
        }
        let extras: Vec<usize> = extra.iter().map(|name| place(&quoted(name), &mut columns)).collect();
        let order = order.map(|name| place(&quoted(name), &mut columns));
        let ledger = self.has_ledger(&node.id).then(|| {
            schema.names().map(|name| (name.to_string(), place(&quoted(name), &mut columns))).collect::<LedgerRow>()
        });
        let as_it_is = |name: &str| columns.iter().position(|column| column.expr == quoted(name));
        let shown = schema.names().filter_map(|name| Some((name.to_string(), as_it_is(name)?))).collect();
        let built = self.project(input, columns)?;
        let mut made = Vec::new();
        for (call, (arg, filter)) in calls.iter().zip(places) {
            let arg_type =
                call.args.first().map(|arg| self.compile(arg, &schema)).transpose()?.map(|arg| arg.data_type().clone());
            let (result, _) =
                expr::aggregate_type(call, arg_type.as_ref()).map_err(|error| RunError::internal(error.to_string()))?;
            made.push(Call {
                function: call.function,
                arg,
                arg_type,
                filter,
                distinct: call.distinct,
                fraction: call.fraction,
                time: order.filter(|_| is_by_time(call)),
                retracts: built.updating,
                wrap: self.env.overflow_wrap,
                result,
            });
        }
        Ok(Arguments { built, calls: made, extras, ledger, shown })
    }

    fn window_aggregate(&mut self, node: &'a Node, aggregate: &graph::WindowAggregate) -> Result<Built> {
        let input = self.input(node)?;
        let attached = matches!(aggregate.window, Window::Attached {});
        let (windows, extra): (Windows, Vec<&str>) = match &aggregate.window {
            Window::Attached {} => (Windows::Attached { start: 0 }, vec!["window_end", "window_start"]),
            other => {
                let (windows, time) = windows(other)?;
                (windows, vec![time])
            }
        };
        let unit = match attached {
            true => input
                .schema
                .column("window_end")
                .and_then(|column| column.data_type.time_unit_us())
                .ok_or_else(|| RunError::internal("window_end is a time"))?,
            false => self.unit(node)?,
        };
        let keys = aggregate.keys.len();
        let Arguments { built, calls, extras, ledger, shown } =
            self.arguments(node, input, &aggregate.keys, &aggregate.aggregates, &extra)?;
        let windows = if attached { Windows::Attached { start: extras[1] } } else { windows };
        let has_ledger = ledger.is_some();
        // The time goes on only where a first or last value needs it.
        let keep: Vec<usize> =
            (0..built.schema.columns.len()).filter(|column| *column < keys || used(&calls, *column)).collect();
        let calls: Vec<Call> = calls.into_iter().map(|call| call.moved(&keep)).collect();
        let assign = AssignSpec {
            time: extras[0],
            unit,
            windows,
            lateness: aggregate.allowed_lateness.us,
            keep: keep.clone(),
            ledger,
            shown,
            operator: node.id.clone(),
        };
        let mut panes = Schema::new(keep.iter().map(|column| built.schema.columns[*column].clone()).collect());
        panes.columns.push(Column::new("pane", DataType::BigInt, false));
        if !windows.is_tumble() {
            panes.columns.push(Column::new("from", DataType::BigInt, false));
        }
        let edge = self.edge(built, &format!("{}.input", node.id), Route::Local);
        let assigned =
            self.push(&format!("{}.panes", node.id), StageKind::WindowAssign(assign), vec![edge], panes, false);
        if has_ledger {
            self.sides.insert(&node.id, assigned);
        }
        let output = self.analysis.facts[&node.id].schema.clone();
        let mut spec = WindowSpec {
            windows,
            unit,
            lateness: aggregate.allowed_lateness.us,
            keys,
            calls,
            partial_input: false,
            output: output.clone(),
        };
        let mut stage = assigned;
        if self.workers > 1 {
            let mut partial = Schema::new(output.columns[..keys].to_vec());
            partial.columns.push(Column::new("pane", DataType::BigInt, false));
            let edge = Edge { stage, side: false, route: Route::Local };
            stage = self.push(
                &format!("{}.partial", node.id),
                StageKind::WindowPartial(spec.clone()),
                vec![edge],
                partial,
                false,
            );
            spec.partial_input = true;
        }
        let route = if self.workers == 1 { Route::Local } else { Route::Key((0..keys).collect()) };
        let updating = self.updating(&node.id);
        let stage = self.push(
            &node.id,
            StageKind::WindowAggregate(spec),
            vec![Edge { stage, side: false, route }],
            output.clone(),
            updating,
        );
        self.trimmed(node, Built { stage, steps: Vec::new(), schema: output, updating })
    }

    fn session(&mut self, node: &'a Node, aggregate: &graph::WindowAggregate, time: &str, gap: i64) -> Result<Built> {
        let input = self.input(node)?;
        let keys = aggregate.keys.len();
        let unit = self.unit(node)?;
        let Arguments { built, calls, extras, ledger, shown } =
            self.arguments(node, input, &aggregate.keys, &aggregate.aggregates, &[time])?;
        let output = self.analysis.facts[&node.id].schema.clone();
        let has_ledger = ledger.is_some();
        let spec = SessionSpec {
            gap,
            unit,
            lateness: aggregate.allowed_lateness.us,
            keys,
            time: extras[0],
            calls,
            output: output.clone(),
            ledger,
            shown,
            operator: node.id.clone(),
        };
        let edge = self.edge(built, &format!("{}.input", node.id), Route::Key((0..keys).collect()));
        let updating = self.updating(&node.id);
        let stage = self.push(&node.id, StageKind::SessionAggregate(spec), vec![edge], output.clone(), updating);
        if has_ledger {
            self.sides.insert(&node.id, stage);
        }
        self.trimmed(node, Built { stage, steps: Vec::new(), schema: output, updating })
    }

    fn aggregate(&mut self, node: &'a Node, aggregate: &graph::Aggregate) -> Result<Built> {
        let input = self.input(node)?;
        let keys = aggregate.keys.len();
        let retracts = input.updating;
        let Arguments { built, calls, .. } =
            self.arguments(node, input, &aggregate.keys, &aggregate.aggregates, &[])?;
        let output = self.analysis.facts[&node.id].schema.clone();
        let mut spec = AggregateSpec {
            keys,
            calls,
            partial_input: false,
            retracts,
            bounded: self.analysis.bounded,
            output: output.clone(),
        };
        let mut edge = self.edge(built, &format!("{}.input", node.id), Route::Local);
        if self.workers > 1 && !retracts {
            let partial = Schema::new(output.columns[..keys].to_vec());
            let stage = self.push(
                &format!("{}.partial", node.id),
                StageKind::Partial(spec.clone()),
                vec![edge],
                partial,
                false,
            );
            edge = Edge { stage, side: false, route: Route::Local };
            spec.partial_input = true;
        }
        edge.route = if self.workers == 1 { Route::Local } else { Route::Key((0..keys).collect()) };
        let updating = self.updating(&node.id);
        let stage = self.push(&node.id, StageKind::Aggregate(spec), vec![edge], output.clone(), updating);
        self.trimmed(node, Built { stage, steps: Vec::new(), schema: output, updating })
    }

    fn sort(&mut self, node: &'a Node, sort: &graph::Sort) -> Result<Built> {
        let input = self.input(node)?;
        let (mut columns, width) = (pass_through(&input.schema), input.schema.columns.len());
        let mut by = Vec::new();
        for key in &sort.by {
            let bare = self.compile(&key.expr, &input.schema)?.column();
            let column = bare.unwrap_or_else(|| {
                columns.push(NamedExpr { name: format!("${}", columns.len()), expr: key.expr.clone() });
                columns.len() - 1
            });
            by.push(SortColumn {
                column,
                descending: key.descending,
                nulls_first: key.nulls_first.unwrap_or(!key.descending),
            });
        }
        let schema = input.schema.clone();
        let drop_last = columns.len() - width;
        let built = if drop_last > 0 { self.project(input, columns)? } else { input };
        let updating = built.updating;
        let edge = self.edge(built, &format!("{}.input", node.id), Route::Single);
        let spec = SortSpec { by, limit: sort.limit, offset: sort.offset, drop_last };
        let stage = self.push(&node.id, StageKind::Sort(spec), vec![edge], schema.clone(), updating);
        Ok(Built { stage, steps: Vec::new(), schema, updating })
    }

    fn sink(&mut self, node: &'a Node, sink: &graph::Sink) -> Result<()> {
        let mut input = self.input(node)?;
        if !sink.columns.is_empty() {
            let cast = |(from, to): (&Column, &Column)| NamedExpr {
                name: to.name.clone(),
                expr: cast_if_needed(&quoted(&from.name), &from.data_type, &to.data_type),
            };
            let columns: Vec<NamedExpr> = input.schema.columns.iter().zip(&sink.columns).map(cast).collect();
            if columns != pass_through(&input.schema) {
                input = self.project(input, columns)?;
            }
        }
        let (schema, updating) = (input.schema.clone(), input.updating);
        let edge = self.edge(input, &format!("{}.input", node.id), Route::Local);
        self.push(&node.id, StageKind::Sink(sink.clone()), vec![edge], schema, updating);
        Ok(())
    }

    /// The side outputs of the named nodes, together.
    fn side(&mut self, node: &'a Node) -> Result<Built> {
        let edges: Vec<Edge> = node
            .inputs
            .iter()
            .map(|input| Edge { stage: self.sides[input.as_str()], side: true, route: Route::Local })
            .collect();
        let schema = self.analysis.facts[&node.id].schema.clone();
        let stage = self.push(&node.id, StageKind::Union, edges, schema.clone(), false);
        self.trimmed(node, Built { stage, steps: Vec::new(), schema, updating: false })
    }

    /// Leaves out the output columns that nobody reads.
    fn trimmed(&self, node: &Node, built: Built) -> Result<Built> {
        let needed = &self.needed[&node.id];
        if needed.len() == built.schema.columns.len() || needed.is_empty() {
            return Ok(built);
        }
        let all = pass_through(&built.schema);
        let columns = needed.iter().map(|column| all[*column].clone()).collect();
        self.project(built, columns)
    }

    fn updating(&self, id: &str) -> bool {
        self.analysis.facts[id].changelog != Changelog::InsertOnly
    }
}

/// An aggregate's projected input and its calls over it.
struct Arguments {
    built: Built,
    calls: Vec<Call>,
    /// Positions of the extra columns.
    extras: Vec<usize>,
    ledger: Option<LedgerRow>,
    shown: LedgerRow,
}

impl Call {
    /// The same call after only the columns `keep` are left.
    fn moved(self, keep: &[usize]) -> Call {
        let moved = |column: usize| keep.iter().position(|kept| *kept == column).expect("used columns are kept");
        Call { arg: self.arg.map(moved), filter: self.filter.map(moved), time: self.time.map(moved), ..self }
    }
}

fn is_by_time(call: &AggregateCall) -> bool {
    matches!(call.function, AggregateFunction::FirstValue | AggregateFunction::LastValue)
}

/// All columns, where they are.
fn ledger_row(schema: &Schema) -> LedgerRow {
    schema.names().enumerate().map(|(column, name)| (name.to_string(), column)).collect()
}

fn used(calls: &[Call], column: usize) -> bool {
    calls.iter().any(|call| call.arg == Some(column) || call.filter == Some(column) || call.time == Some(column))
}

/// Each column as itself.
fn pass_through(schema: &Schema) -> Vec<NamedExpr> {
    schema.names().map(|name| NamedExpr { name: name.to_string(), expr: quoted(name) }).collect()
}

fn cast_if_needed(expr: &str, from: &DataType, to: &DataType) -> String {
    if from == to { expr.to_string() } else { expr::cast(expr, to) }
}

/// The source's column that a prelude passes on unchanged as `name`.
fn read_as_is(name: &str, prelude: &[Step]) -> Option<String> {
    let mut name = name.to_string();
    for step in prelude.iter().rev() {
        if let Step::Project(columns, _) = step {
            let column = columns.iter().find(|column| column.name == name)?;
            let bare = column.expr.trim_matches('`');
            if quoted(bare) != column.expr {
                return None;
            }
            name = bare.to_string();
        }
    }
    Some(name)
}

fn windows(window: &Window) -> Result<(Windows, &str)> {
    Ok(match window {
        Window::Tumble { time, size, offset } => {
            (Windows::Hop { size: size.us, slide: size.us, offset: offset.us }, time)
        }
        Window::Hop { time, size, slide, offset } => {
            (Windows::Hop { size: size.us, slide: slide.us, offset: offset.us }, time)
        }
        Window::Cumulate { time, size, step, offset } => {
            (Windows::Cumulate { size: size.us, step: step.us, offset: offset.us }, time)
        }
        Window::Session { .. } | Window::Attached {} => return Err(RunError::internal("these windows have no panes")),
    })
}
