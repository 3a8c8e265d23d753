//! The nodes of a graph: a flat list of typed operators, each naming its inputs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Column, Period, SinkConnector, SourceConnector};

/// An operator and where its input comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Unique in the graph. State is found again by it, so it must not change while the meaning stays.
    pub id: String,
    /// Ids of the nodes whose rows come in, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    #[serde(flatten)]
    pub operator: Operator,
}

/// What a node does. Expressions are SQL text over the columns of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Operator {
    /// Reads rows. No inputs.
    Source(Source),
    /// Computes columns from columns.
    Project(Project),
    /// Keeps the rows for which the predicate is true.
    Filter(Filter),
    /// All rows of all inputs, whose columns agree in number and type; the names are the first input's.
    Union(Union),
    /// Declares the time attribute of a source. Between it and the source there are only projections and filters.
    Watermark(Watermark),
    /// Adds `window_start`, `window_end`, `window_time`; one row for each window of the row.
    WindowAssign(WindowAssign),
    /// Aggregates by window and keys; a window's rows leave when the watermark closes it.
    WindowAggregate(WindowAggregate),
    /// Aggregates by keys over all rows so far: an updating result.
    Aggregate(Aggregate),
    /// Orders and limits a bounded result.
    Sort(Sort),
    /// Writes rows. No output.
    Sink(Sink),
    /// The lateness ledger of the window operators named as inputs.
    LateRows(LateRows),
    /// The records that the sources named as inputs could not use.
    DeadLetters(DeadLetters),
}

impl Operator {
    /// The values of `type` in JSON.
    pub const TYPE_NAMES: &[&str] = &[
        "source",
        "project",
        "filter",
        "union",
        "watermark",
        "window_assign",
        "window_aggregate",
        "aggregate",
        "sort",
        "sink",
        "late_rows",
        "dead_letters",
    ];

    /// The value of `type` in JSON.
    pub fn type_name(&self) -> &'static str {
        match self {
            Operator::Source(_) => "source",
            Operator::Project(_) => "project",
            Operator::Filter(_) => "filter",
            Operator::Union(_) => "union",
            Operator::Watermark(_) => "watermark",
            Operator::WindowAssign(_) => "window_assign",
            Operator::WindowAggregate(_) => "window_aggregate",
            Operator::Aggregate(_) => "aggregate",
            Operator::Sort(_) => "sort",
            Operator::Sink(_) => "sink",
            Operator::LateRows(_) => "late_rows",
            Operator::DeadLetters(_) => "dead_letters",
        }
    }
}

/// What happens to a record that cannot be read, or whose event time is NULL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBad {
    /// The run fails with the record's position.
    #[default]
    Fail,
    /// The record goes to the dead letters; a `dead_letters` node must take them.
    DeadLetter,
    /// The record is dropped and counted.
    Drop,
}

/// Rows of a table that a connector reads. Output: `columns`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The name that messages, metrics and the ledgers use.
    pub table: String,
    pub connector: SourceConnector,
    /// The columns as they stand in the files or messages.
    pub columns: Vec<Column>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_bad_record: OnBad,
    /// Hive-style partition columns (`k=v` in the path), the last of `columns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// Columns that stand beside the record, and what they hold: `{"at": "timestamp"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// An expression and the name of the column that holds its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedExpr {
    pub name: String,
    /// SQL text over the input's columns.
    pub expr: String,
}

/// Output: `columns`, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    pub columns: Vec<NamedExpr>,
}

/// Output: the columns of the input. `predicate` is SQL text of type BOOLEAN; rows for which it is false or NULL are dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Filter {
    pub predicate: String,
}

/// Output: the columns of the first input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Union {}

/// Output: the columns of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Watermark {
    /// A timestamp column of precision 0, 3 or 6: the time attribute.
    pub column: String,
    /// How far rows may be out of order: the watermark stays this far behind the largest time seen.
    #[serde(default)]
    pub delay: Period,
    /// A split without rows for this long no longer holds the watermark back. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Period>,
    /// A time further ahead of the wall clock than this is a bad record. Default: 1h for live sources, no limit for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ahead: Option<Period>,
    /// What happens to a row whose time is NULL.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_null: OnBad,
}

/// Which windows a row belongs to. Windows are `[start, end)`, aligned to the Unix epoch plus the offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Window {
    /// Fixed windows that follow one another.
    Tumble {
        time: String,
        size: Period,
        #[serde(default, skip_serializing_if = "is_default")]
        offset: Period,
    },
    /// Windows of `size` that begin every `slide`.
    Hop {
        time: String,
        size: Period,
        slide: Period,
        #[serde(default, skip_serializing_if = "is_default")]
        offset: Period,
    },
    /// Windows that share a start and grow by `step` up to `size`, of which `step` is a divisor.
    Cumulate {
        time: String,
        size: Period,
        step: Period,
        #[serde(default, skip_serializing_if = "is_default")]
        offset: Period,
    },
    /// Rows with the same keys whose distance is at most `gap`; the end is the last row's time plus the gap.
    Session { time: String, gap: Period },
    /// The windows that an earlier operator attached, in the columns `window_start`, `window_end` and `window_time`.
    Attached {},
}

/// Output: the columns of the input, then `window_start`, `window_end` and `window_time`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowAssign {
    /// Tumble, hop or cumulate.
    pub window: Window,
}

/// A function of the rows of a group. Values that are NULL are ignored; of no values the result is NULL, or 0 for a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AggregateFunction {
    /// Without arguments: rows; with one: its values that are not NULL.
    Count,
    Sum,
    Avg,
    Min,
    Max,
    StddevPop,
    StddevSamp,
    VarPop,
    VarSamp,
    /// A DDSketch with a relative error of 1 %; `fraction` says which.
    ApproxPercentile,
    /// By the time attribute, ties by the value.
    FirstValue,
    LastValue,
}

impl AggregateFunction {
    /// Its name in JSON and, in upper case, in SQL.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::StddevPop => "stddev_pop",
            AggregateFunction::StddevSamp => "stddev_samp",
            AggregateFunction::VarPop => "var_pop",
            AggregateFunction::VarSamp => "var_samp",
            AggregateFunction::ApproxPercentile => "approx_percentile",
            AggregateFunction::FirstValue => "first_value",
            AggregateFunction::LastValue => "last_value",
        }
    }
}

/// An aggregate function and the column that holds its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AggregateCall {
    /// The result's column.
    pub name: String,
    pub function: AggregateFunction,
    /// At most one SQL text over the input's columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Counts each value once. For count, sum and avg.
    #[serde(default, skip_serializing_if = "is_default")]
    pub distinct: bool,
    /// Takes only rows for which this is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Of approx_percentile: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
}

/// Output: the keys, then `window_start`, `window_end`, `window_time` (the new time attribute), then the aggregates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowAggregate {
    pub window: Window,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<NamedExpr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregates: Vec<AggregateCall>,
    /// Keeps fired windows this long, and fires them again when a row comes: the result is then updating. Default: 0s.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allowed_lateness: Period,
}

/// Output: the keys, then the aggregates. Without keys there is always one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Aggregate {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<NamedExpr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregates: Vec<AggregateCall>,
}

/// One of the expressions by which rows are ordered: SQL text over the columns of the input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    pub expr: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub descending: bool,
    /// Default: NULL is the smallest value, so it is first when ascending and last when descending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nulls_first: Option<bool>,
}

/// Output: the columns of the input; the rows in the order of `by`, `limit` of them behind the first `offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sort {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<SortKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub offset: u64,
}

/// A table that a connector writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sink {
    pub table: String,
    pub connector: SinkConnector,
    /// The table's columns. The input's columns are matched by position and cast; empty takes the input as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary_key: Vec<String>,
    /// Columns by which files are put into `k=v` directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// Columns that stand beside the record, and what they hold: `{"at": "timestamp"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Sink {
    /// Whether rows may change or go that the sink has been given.
    pub fn takes_updates(&self) -> bool {
        self.connector.takes_updates(&self.primary_key)
    }

    /// The view that it writes, if it writes one.
    pub fn view_name(&self) -> Option<&str> {
        match &self.connector {
            SinkConnector::View(options) => Some(options.name.as_deref().unwrap_or(&self.table)),
            _ => None,
        }
    }
}

/// Output: source, split, position, event_time, watermark, operator, windows_missed, row (as JSON). See [`crate::late_rows_schema`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LateRows {}

/// Output: source, split, position, code, message, payload. See [`crate::dead_letters_schema`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetters {}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
