//! Physical stages: what each worker builds, in order. A plan is plain data; `EXPLAIN` prints it and tests hold it.

use std::collections::BTreeSet;

use graph::{AggregateFunction, Schema};

/// The stages of a run, inputs before readers. Positions in the list are the channel order, so every worker builds the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub stages: Vec<Stage>,
    /// Derived: all sources are bounded.
    pub bounded: bool,
}

impl Plan {
    /// Whether no stage between the sources and this one has state: each row that it gets follows from one input row alone.
    pub fn is_stateless_before(&self, stage: &Stage) -> bool {
        stage.stateless_before
    }

    /// The sinks, each with its position among the stages.
    pub fn sinks(&self) -> impl Iterator<Item = (usize, &Stage)> {
        self.stages.iter().enumerate().filter(|(_, stage)| matches!(stage.kind, StageKind::Sink(_)))
    }

    /// For each sink, in the order of the plan, the sources whose rows may reach it, by their positions among the sources.
    pub fn sources_of_sinks(&self) -> Vec<Vec<usize>> {
        let mut of_stages: Vec<BTreeSet<usize>> = Vec::new();
        let (mut sources, mut of_sinks) = (0, Vec::new());
        for stage in &self.stages {
            let mut reach: BTreeSet<usize> =
                stage.inputs.iter().flat_map(|edge| &of_stages[edge.stage]).copied().collect();
            match stage.kind {
                StageKind::Source(_) => {
                    reach.insert(sources);
                    sources += 1;
                }
                StageKind::Sink(_) => of_sinks.push(reach.iter().copied().collect()),
                _ => {}
            }
            of_stages.push(reach);
        }
        of_sinks
    }

    /// Whether some stage reads the side output of the stage at `position`.
    pub fn reads_side(&self, position: usize) -> bool {
        self.stages.iter().flat_map(|stage| &stage.inputs).any(|edge| edge.stage == position && edge.side)
    }
}

impl StageKind {
    /// Whether the operator can keep its state on disk (`state.backend`).
    pub fn may_be_on_disk(&self) -> bool {
        match self {
            StageKind::Aggregate(spec) => spec.keys > 0,
            StageKind::WindowAggregate(spec) => spec.keys > 0,
            StageKind::SessionAggregate(spec) => spec.keys > 0,
            _ => false,
        }
    }

    /// Whether the stage is an operator with state, snapshot at checkpoints.
    pub fn has_state(&self) -> bool {
        !matches!(
            self,
            StageKind::Source(_)
                | StageKind::Steps(_)
                | StageKind::Union
                | StageKind::WindowExpand(_)
                | StageKind::WindowAssign(_)
        )
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The graph node that this stage belongs to; state is stored under it. Stages with state have a node of their own.
    pub operator: String,
    pub kind: StageKind,
    pub inputs: Vec<Edge>,
    /// Columns of the main output; of a sink, of its input.
    pub schema: Schema,
    /// Whether rows of the main output (of a sink: of its input) may be other than inserts.
    pub updating: bool,
    /// See [`Plan::is_stateless_before`].
    pub(super) stateless_before: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Position of the stage that sends.
    pub stage: usize,
    /// Whether the rows come from its side output.
    pub side: bool,
    pub route: Route,
}

/// Which worker gets a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// The one that has it.
    Local,
    /// The owner of the key group of these columns.
    Key(Vec<usize>),
    /// Worker 0.
    Single,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StageKind {
    Source(SourceStage),
    /// Filters and projections, fused.
    Steps(Vec<Step>),
    Union,
    /// One row per row and window, with `window_start`, `window_end`, `window_time` appended; late row-windows to the side.
    WindowExpand(AssignSpec),
    /// Gives each row its pane and takes out rows that are late for all their windows (side output).
    WindowAssign(AssignSpec),
    /// Aggregates by pane and key before the exchange; emits everything whenever the watermark or the epoch moves.
    WindowPartial(WindowSpec),
    WindowAggregate(WindowSpec),
    SessionAggregate(SessionSpec),
    /// Aggregates before the exchange; emits everything at the end of an epoch.
    Partial(AggregateSpec),
    Aggregate(AggregateSpec),
    Sort(SortSpec),
    Sink(graph::Sink),
}

#[derive(Clone, Debug, PartialEq)]
pub struct SourceStage {
    pub node: graph::Source,
    /// Columns that the reader delivers.
    pub read: Schema,
    /// Conditions (`column op literal`) that a reader may use to skip what cannot match; they are applied again by `prelude`.
    pub pushed: Vec<crate::source::Pushed>,
    /// Run on every batch before watermarks are taken from it.
    pub prelude: Vec<Step>,
    pub time: Option<SourceTime>,
    /// Whether rows carry their split and position, for a lateness ledger or dead letters.
    pub origin: bool,
}

/// The time attribute of a source's output, after the prelude.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceTime {
    pub column: usize,
    /// Whether rows that have no time are dealt with by `on_null`, and rows too far ahead go to the dead letters. Not where nobody looks at
    /// the time.
    pub judged: bool,
    /// The column of `read` that it comes from unchanged, if so.
    pub read_column: Option<String>,
    pub unit_us: i64,
    pub delay_us: i64,
    pub idle_timeout_us: Option<i64>,
    pub max_ahead_us: Option<i64>,
    pub on_null: graph::OnBad,
}

/// A part of a fused stateless stage; expressions are over the columns that the part before leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Filter(String),
    /// Name and expression of each column; the resulting schema.
    Project(Vec<graph::NamedExpr>, Schema),
}

/// What the lateness ledger shows of a row: the columns of the window operator's input, by their names there, and where they are.
pub type LedgerRow = Vec<(String, usize)>;

/// How rows are put into panes. All lengths in microseconds. `unit` is the time attribute's.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignSpec {
    /// Column of the time attribute; for `Attached` the column of `window_end`.
    pub time: usize,
    pub unit: i64,
    pub windows: Windows,
    pub lateness: i64,
    /// Columns that go on (keys and arguments), in order; the pane columns follow (see [`WindowSpec`]). For `WindowExpand`: all.
    pub keep: Vec<usize>,
    /// Late rows are sent to the side output as ledger rows (`graph::late_rows_schema`), not only counted.
    pub ledger: Option<LedgerRow>,
    /// What can be shown of a late row where no ledger is read: the columns that are there anyway.
    pub shown: LedgerRow,
    /// For the ledger: the operator's id.
    pub operator: String,
}

/// Windows as sets of panes. `[start, end)` with starts aligned to `offset` modulo the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// `slide` is the size for tumbling windows; a pane is gcd(slide, size) long.
    Hop { size: i64, slide: i64, offset: i64 },
    /// Starts every `size`; ends at every multiple of `step` after the start; a pane is `step` long.
    Cumulate { size: i64, step: i64, offset: i64 },
    /// The rows bring `window_start` (the column given) and `window_end` with them; a pane is one such window.
    Attached { start: usize },
}

/// A windowed aggregate. Input rows: keys, arguments and filters, then `pane` (BIGINT, start of the pane in microseconds), then, except
/// for tumbling windows, `from` (BIGINT): for hop and cumulate the end of the first window that the row counts in (`i64::MIN`: all), for
/// attached windows the end of its window. A partial stage replaces arguments and filters by partial states.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSpec {
    pub windows: Windows,
    pub unit: i64,
    pub lateness: i64,
    /// The first columns of the input are the keys.
    pub keys: usize,
    pub calls: Vec<Call>,
    /// Whether the input holds partial states (in the order of the calls, each with its state columns) instead of arguments.
    pub partial_input: bool,
    /// Output: keys, window_start, window_end, window_time, results.
    pub output: Schema,
}

impl Windows {
    /// Whether each row is in one window only, so that `from` is not needed.
    pub fn is_tumble(&self) -> bool {
        matches!(self, Windows::Hop { size, slide, .. } if size == slide)
    }
}

/// Sessions by key. Input rows: keys, arguments and filters, then the time attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSpec {
    pub gap: i64,
    pub unit: i64,
    pub lateness: i64,
    pub keys: usize,
    /// Column of the time attribute.
    pub time: usize,
    pub calls: Vec<Call>,
    pub output: Schema,
    /// As in [`AssignSpec`].
    pub ledger: Option<LedgerRow>,
    pub shown: LedgerRow,
    pub operator: String,
}

/// A running aggregate. Input rows: keys, then arguments and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateSpec {
    pub keys: usize,
    pub calls: Vec<Call>,
    pub partial_input: bool,
    /// Input rows may be taken back.
    pub retracts: bool,
    /// Emit only at the final watermark, inserts only.
    pub bounded: bool,
    /// Output: keys, then results.
    pub output: Schema,
}

/// One aggregate function over columns of the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub function: AggregateFunction,
    pub arg: Option<usize>,
    pub arg_type: Option<graph::DataType>,
    pub filter: Option<usize>,
    pub distinct: bool,
    /// Of approx_percentile.
    pub fraction: Option<f64>,
    /// Column of the time attribute, for first and last value.
    pub time: Option<usize>,
    /// Rows may be taken back, so the state must allow it.
    pub retracts: bool,
    /// A sum of integers that overflows wraps (`overflow.wrap`) instead of failing.
    pub wrap: bool,
    pub result: graph::DataType,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SortSpec {
    pub by: Vec<SortColumn>,
    pub limit: Option<u64>,
    pub offset: u64,
    /// Columns at the end of the input that only served to sort; the output is without them.
    pub drop_last: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortColumn {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

#[cfg(test)]
mod tests {
    use graph::{Graph, Settings};

    use super::*;

    fn planned(nodes: &str) -> Plan {
        let source = |id: &str| {
            format!(
                r#"{{"id": "{id}", "type": "source", "table": "{id}", "connector": {{"type": "datagen"}},
                    "columns": [{{"name": "a", "type": "BIGINT"}}]}}"#
            )
        };
        let text = format!(r#"{{"version": 1, "nodes": [{}, {}, {nodes}]}}"#, source("s"), source("t"));
        let graph = Graph::from_json(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
        crate::plan::plan(&graph, &Settings::default(), 1).expect("it can be planned")
    }

    fn sink(id: &str, input: &str) -> String {
        format!(
            r#"{{"id": "{id}", "type": "sink", "inputs": ["{input}"], "table": "{id}", "connector": {{"type": "blackhole"}}}}"#
        )
    }

    /// As many unions, one behind the other, each of two projections of the one before.
    fn diamonds(first: &str, levels: usize) -> (String, String) {
        let (mut nodes, mut before) = (String::new(), first.to_string());
        for level in 0..levels {
            for add in 1..3 {
                nodes += &format!(
                    r#"{{"id": "p{level}-{add}", "type": "project", "inputs": ["{before}"], "columns": [{{"name": "a", "expr": "a + {add}"}}]}},"#
                );
            }
            before = format!("u{level}");
            nodes += &format!(r#"{{"id": "{before}", "type": "union", "inputs": ["p{level}-1", "p{level}-2"]}},"#);
        }
        (nodes, before)
    }

    #[test]
    fn what_is_before_a_stage_is_known_at_once_however_many_ways_lead_there() {
        let (nodes, last) = diamonds("s", 40);
        let plan = planned(&format!("{nodes} {}, {}", sink("out", &last), sink("other", "t")));
        let sinks = plan.stages.iter().filter(|stage| matches!(stage.kind, StageKind::Sink(_)));
        assert_eq!(sinks.map(|sink| plan.is_stateless_before(sink)).collect::<Vec<_>>(), [true, true]);
        let mut reached = plan.sources_of_sinks();
        reached.sort();
        assert_eq!(reached, [[0], [1]]);
    }

    #[test]
    fn state_is_seen_from_far() {
        let sums = r#"{"id": "sums", "type": "aggregate", "inputs": ["s"], "keys": [{"name": "a", "expr": "a"}], "aggregates": []},"#;
        let both = r#"{"id": "both", "type": "union", "inputs": ["more", "t"]},"#;
        let more =
            r#"{"id": "more", "type": "project", "inputs": ["sums"], "columns": [{"name": "a", "expr": "a + 1"}]},"#;
        let plan = planned(&format!("{sums} {more} {both} {}", sink("out", "both")));
        let before = |id: &str| {
            plan.stages.iter().find(|stage| stage.operator == id).map(|stage| plan.is_stateless_before(stage))
        };
        assert_eq!((before("sums"), before("both"), before("out")), (Some(true), Some(false), Some(false)));
        assert_eq!(plan.sources_of_sinks(), [[0, 1]]);
    }
}
