//! The rule of each operator: what its output is, given its inputs.

use std::collections::{BTreeMap, BTreeSet};

use graph::connector::{VIEW_NAMES, is_view_name};
use graph::{
    Aggregate, AggregateCall, AggregateFunction, Column, DataType, Graph, NamedExpr, Node, OnBad, Operator, Project,
    Schema, Sink, SinkConnector, Sort, Source, SourceConnector, Watermark, Window, WindowAggregate,
    dead_letters_schema, late_rows_schema, suggestion,
};

use super::{Changelog, Facts, Known, TimeAttribute, Walk, expression_problem, window};
use crate::aggregate::aggregate_type;
use crate::types::{casts_implicitly, common_type};

const WINDOW_COLUMNS: [&str; 3] = ["window_start", "window_end", "window_time"];

/// The facts of a node's output. Problems go to the walk; what is given back counts only if there were none.
pub(super) fn derive(walk: &mut Walk, index: usize, inputs: &[Known]) -> Option<Known> {
    let node = &walk.graph.nodes[index];
    let (at, id) = (format!("/nodes/{index}"), node.id.as_str());
    match (&node.operator, inputs) {
        (Operator::Source(source), []) => self::source(walk, index, source, &at),
        (Operator::Project(project), [input]) => self::project(walk, project, input, &at),
        (Operator::Filter(filter), [input]) => {
            let predicate = walk.compile(&filter.predicate, input, format!("{at}/predicate"))?;
            if *predicate.data_type() != DataType::Boolean {
                let message = format!("a filter wants BOOLEAN, not {}", predicate.data_type());
                walk.problem("type_mismatch", message, "write a comparison, such as x <> 0", format!("{at}/predicate"));
            }
            let unstable = predicate.volatile()
                || predicate.columns().iter().any(|c| input.unstable.contains(&input.facts.schema.columns[*c].name));
            if unstable && input.updating() {
                let message = "a filter that depends on the clock cannot take changing rows: it may keep a row and drop the one that takes it back";
                walk.problem(
                    "non_deterministic_update",
                    message,
                    "filter before the aggregation",
                    format!("{at}/predicate"),
                );
            }
            Some(input.clone())
        }
        (Operator::Union(_), inputs) => self::union(walk, inputs, &node.inputs, &at),
        (Operator::Watermark(watermark), [input]) => self::watermark(walk, node, watermark, input, &at),
        (Operator::WindowAssign(assign), [input]) => self::window_assign(walk, id, &assign.window, input, &at),
        (Operator::WindowAggregate(aggregate), [input]) => self::window_aggregate(walk, id, aggregate, input, &at),
        (Operator::Aggregate(aggregate), [input]) => self::aggregate(walk, id, aggregate, input, &at),
        (Operator::Sort(sort), [input]) => self::sort(walk, id, sort, input, &at),
        (Operator::Sink(sink), [input]) => self::sink(walk, sink, input, &at),
        (Operator::LateRows(_), inputs) => Some(side_output(late_rows_schema(), inputs)),
        (Operator::DeadLetters(_), inputs) => Some(side_output(dead_letters_schema(), inputs)),
        // The number of inputs is a matter of the graph's form, which was checked before.
        _ => None,
    }
}

fn side_output(schema: Schema, inputs: &[Known]) -> Known {
    let facts = Facts {
        schema,
        bounded: inputs.iter().all(|input| input.facts.bounded),
        time: None,
        changelog: Changelog::InsertOnly,
        key: None,
        order: None,
        windowed: false,
        updates_from: None,
    };
    Known { facts, raw_source: None, no_watermark: None, unstable: BTreeSet::new() }
}

/// The names of `items`, which stand at the pointer `at`, each with its own pointer.
fn named<T>(items: &[T], name: fn(&T) -> &str, at: String) -> impl Iterator<Item = (&str, String)> {
    items.iter().enumerate().map(move |(number, item)| (name(item), format!("{at}/{number}/name")))
}

/// Reports the names that come twice, or are empty.
fn unique_names<'n>(walk: &mut Walk, names: impl Iterator<Item = (&'n str, String)>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (name, pointer) in names {
        if name.is_empty() {
            walk.problem("invalid_name", "a column has a name", "", pointer);
        } else if !seen.insert(name) {
            walk.problem(
                "duplicate_column",
                format!("there are two columns {name}"),
                "give one of them another name",
                pointer,
            );
        }
    }
}

fn has_dead_letters(walk: &Walk, source: &str) -> bool {
    walk.graph.nodes.iter().any(|node| {
        matches!(node.operator, Operator::DeadLetters(_)) && node.inputs.iter().any(|input| input == source)
    })
}

fn source(walk: &mut Walk, index: usize, source: &Source, at: &str) -> Option<Known> {
    let id = walk.graph.nodes[index].id.clone();
    if source.columns.is_empty() {
        walk.problem("no_columns", format!("the source {} has no columns", source.table), "", format!("{at}/columns"));
    }
    unique_names(walk, named(&source.columns, |column| &column.name, format!("{at}/columns")));
    partition_columns(walk, &source.partition_by, &source.columns, at);
    let kafka = matches!(source.connector, SourceConnector::Kafka(_));
    metadata_columns(walk, &source.metadata, &source.columns, (kafka, false), at);
    let last = source.columns.len().saturating_sub(source.partition_by.len());
    if !source.partition_by.iter().eq(source.columns.iter().skip(last).map(|column| &column.name)) {
        let message = "the partition columns are the last columns, in the order of partition_by";
        walk.problem("invalid_partitions", message, "move them to the end of columns", format!("{at}/partition_by"));
    }
    if source.on_bad_record == OnBad::DeadLetter && !has_dead_letters(walk, &id) {
        let message = format!("the bad records of {} have nowhere to go", source.table);
        let hint = "connect a dead_letters node to the source and to a sink, or choose fail or drop";
        walk.problem("no_dead_letters", message, hint, format!("{at}/on_bad_record"));
    }
    let facts = Facts {
        schema: Schema::new(source.columns.clone()),
        bounded: source.connector.is_bounded(),
        time: None,
        changelog: Changelog::InsertOnly,
        key: None,
        order: None,
        windowed: false,
        updates_from: None,
    };
    Some(Known { facts, raw_source: Some(index), no_watermark: Some(source.table.clone()), unstable: BTreeSet::new() })
}

/// Columns that stand beside a record: known to the connector, of a type that it can give.
fn metadata_columns(
    walk: &mut Walk,
    metadata: &BTreeMap<String, String>,
    columns: &[Column],
    (kafka, written): (bool, bool),
    at: &str,
) {
    for (name, key) in metadata {
        let position = columns.iter().position(|column| column.name == *name);
        let pointer = position.map_or(format!("{at}/metadata"), |column| format!("{at}/columns/{column}"));
        let Some(position) = position else {
            let hint = suggestion(name, columns.iter().map(|column| column.name.as_str()));
            walk.problem("unknown_column", format!("there is no column {name} for the metadata {key}"), hint, pointer);
            continue;
        };
        let own = &columns[position].data_type;
        if !kafka {
            let message = format!("the column {name} is metadata, and only kafka tables have some");
            walk.problem("unknown_metadata", message, "remove METADATA, or the column", pointer);
            continue;
        }
        let Some(types) = graph::KafkaOptions::metadata_types(key) else {
            let hint = suggestion(key, graph::KafkaOptions::metadata_names());
            walk.problem("unknown_metadata", format!("kafka records have no metadata {key:?}"), hint, pointer);
            continue;
        };
        if !types.contains(own) {
            let types = types.iter().map(|data_type| data_type.to_string()).collect::<Vec<_>>().join(" or ");
            let message = format!("the metadata {key} cannot be a {own}");
            walk.problem("unknown_metadata", message, format!("declare {name} as {types}"), pointer);
        } else if written && !graph::KafkaOptions::metadata_is_writable(key) {
            let message = format!("the metadata {key} cannot be written");
            walk.problem(
                "unknown_metadata",
                message,
                format!("declare {name} as {own} METADATA FROM '{key}' VIRTUAL"),
                pointer,
            );
        }
    }
}

fn partition_columns(walk: &mut Walk, partition_by: &[String], columns: &[Column], at: &str) {
    for (p, name) in partition_by.iter().enumerate() {
        if !columns.iter().any(|column| column.name == *name) {
            let hint = suggestion(name, columns.iter().map(|column| column.name.as_str()));
            walk.problem(
                "unknown_column",
                format!("there is no column {name} to partition by"),
                hint,
                format!("{at}/partition_by/{p}"),
            );
        }
    }
    if !columns.is_empty() && partition_by.len() >= columns.len() {
        walk.problem(
            "invalid_partitions",
            "every column is a partition column",
            "leave one for the files",
            format!("{at}/partition_by"),
        );
    }
}

fn project(walk: &mut Walk, project: &Project, input: &Known, at: &str) -> Option<Known> {
    if project.columns.is_empty() {
        walk.problem("no_columns", "a projection has at least one column", "", format!("{at}/columns"));
    }
    unique_names(walk, named(&project.columns, |column| &column.name, format!("{at}/columns")));
    let names: Vec<&str> = input.facts.schema.names().collect();
    let mut columns = Vec::with_capacity(project.columns.len());
    let mut unstable = BTreeSet::new();
    // (input column, output column) of what passes bare, and of times cast to a finer precision.
    let mut bare: Vec<(&str, &str)> = Vec::new();
    let mut finer: Vec<(&str, &str)> = Vec::new();
    for (c, NamedExpr { name, expr }) in project.columns.iter().enumerate() {
        let Some(compiled) = walk.compile(expr, input, format!("{at}/columns/{c}/expr")) else { continue };
        columns.push(Column::new(name, compiled.data_type().clone(), compiled.nullable()));
        if let Some(column) = compiled.column() {
            bare.push((names[column], name));
        }
        if let Some(column) = compiled.widened_time {
            finer.push((names[column], name));
        }
        if compiled.volatile() || compiled.columns().iter().any(|column| input.unstable.contains(names[*column])) {
            unstable.insert(name.clone());
        }
    }
    let renamed = |name: &str| bare.iter().find(|(from, _)| *from == name).map(|(_, to)| to.to_string());
    let schema = Schema::new(columns);
    let time = input.facts.time.as_ref().and_then(|time| {
        let column = renamed(&time.column)
            .or_else(|| finer.iter().find(|(from, _)| *from == time.column).map(|(_, to)| to.to_string()))?;
        let unit_us = schema.column(&column)?.data_type.time_unit_us()?;
        Some(TimeAttribute { column, unit_us })
    });
    let windowed = input.facts.windowed && WINDOW_COLUMNS.iter().all(|name| renamed(name).as_deref() == Some(*name));
    let key = input.facts.key.as_ref().and_then(|key| key.iter().map(|name| renamed(name)).collect());
    let order = input
        .facts
        .order
        .as_ref()
        .and_then(|order| renamed(order))
        .or_else(|| time.as_ref().map(|time| time.column.clone()));
    let facts = Facts { schema, time, windowed, key, order, ..input.facts.clone() };
    let known = Known { facts, unstable, ..input.clone() };
    if !known.unstable.is_empty() && known.updating() && known.facts.key.is_none() {
        let names: Vec<&str> = known.unstable.iter().map(String::as_str).collect();
        let message = format!("{} depends on the clock, and the changing rows have no key here", names.join(", "));
        walk.problem("non_deterministic_update", message, "keep the columns of the key", format!("{at}/columns"));
    }
    Some(known)
}

fn union(walk: &mut Walk, inputs: &[Known], ids: &[String], at: &str) -> Option<Known> {
    let (first, rest) = inputs.split_first()?;
    let mut schema = first.facts.schema.clone();
    for (position, input) in rest.iter().enumerate() {
        let pointer = format!("{at}/inputs/{}", position + 1);
        let (a, b) = (&first.facts.schema.columns, &input.facts.schema.columns);
        if a.len() != b.len() {
            let message = format!(
                "the inputs of a union have as many columns: {:?} has {}, {:?} has {}",
                ids[0],
                a.len(),
                ids[position + 1],
                b.len()
            );
            walk.problem("union_mismatch", message, "project the same columns from each", pointer);
            continue;
        }
        for (c, y) in b.iter().enumerate() {
            let x = &schema.columns[c];
            let same_kind = x.data_type.is_timestamp()
                && std::mem::discriminant(&x.data_type) == std::mem::discriminant(&y.data_type);
            // Times of one kind are taken as the finest of their precisions; all else must agree.
            match common_type(&x.data_type, &y.data_type).filter(|_| same_kind || x.data_type == y.data_type) {
                Some(common) => schema.columns[c].data_type = common,
                None => {
                    let message = format!(
                        "column {} of the union is {} {} in {:?} but {} {} in {:?}",
                        c + 1,
                        x.name,
                        x.data_type,
                        ids[0],
                        y.name,
                        y.data_type,
                        ids[position + 1]
                    );
                    walk.problem(
                        "union_mismatch",
                        message,
                        "write a CAST in a projection before the union",
                        pointer.clone(),
                    );
                }
            }
            schema.columns[c].nullable |= y.nullable;
        }
    }
    let position_of =
        |known: &Known| known.facts.time.as_ref().and_then(|time| known.facts.schema.index_of(&time.column));
    let times: Vec<Option<usize>> = inputs.iter().map(position_of).collect();
    let agree = times.iter().all(|time| time.is_some() && *time == times[0]);
    let unit_us = inputs.iter().filter_map(|input| input.facts.time.as_ref()).map(|time| time.unit_us).min();
    let time = match (times[0].filter(|_| agree), unit_us) {
        (Some(position), Some(unit_us)) => {
            Some(TimeAttribute { column: schema.columns[position].name.clone(), unit_us })
        }
        _ => None,
    };
    if time.is_none() && times.iter().any(Option::is_some) {
        let message =
            "the inputs of the union do not all have their time attribute in the same column, so the result has none";
        walk.warning(
            "time_attribute_lost",
            message,
            "declare a watermark in each, and project the time to the same position",
            format!("{at}/inputs"),
        );
    }
    let updating = inputs.iter().find(|input| input.updating());
    let facts = Facts {
        order: time.as_ref().map(|time| time.column.clone()),
        time,
        bounded: inputs.iter().all(|input| input.facts.bounded),
        changelog: updating.map_or(Changelog::InsertOnly, |_| Changelog::Retract),
        key: None,
        windowed: inputs.iter().all(|input| input.facts.windowed && input.facts.schema.names().eq(schema.names())),
        updates_from: updating.and_then(|input| input.facts.updates_from.clone()),
        schema,
    };
    let mut unstable = BTreeSet::new();
    for input in inputs {
        for (column, own) in facts.schema.names().zip(input.facts.schema.names()) {
            if input.unstable.contains(own) {
                unstable.insert(column.to_string());
            }
        }
    }
    if !unstable.is_empty() && facts.changelog != Changelog::InsertOnly {
        let message = "a union has no key, so changing rows cannot carry columns that depend on the clock";
        walk.problem(
            "non_deterministic_update",
            message,
            "compute them before the aggregation",
            format!("{at}/inputs"),
        );
    }
    let no_watermark = inputs.iter().find_map(|input| input.no_watermark.clone());
    Some(Known { facts, raw_source: None, no_watermark, unstable })
}

/// A node that reads what is between a watermark and its source, other than on the way to the watermark.
fn reads_past<'a>(graph: &'a Graph, watermark: &Node) -> Option<&'a str> {
    let (mut id, mut reader) = (watermark.inputs.first()?.as_str(), watermark.id.as_str());
    loop {
        let is_side = |node: &Node| matches!(node.operator, Operator::LateRows(_) | Operator::DeadLetters(_));
        let mut readers =
            graph.nodes.iter().filter(|node| !is_side(node) && node.inputs.iter().any(|input| input == id));
        if let Some(other) = readers.find(|node| node.id != reader) {
            return Some(&other.id);
        }
        let node = graph.nodes.iter().find(|node| node.id == id)?;
        (id, reader) = (node.inputs.first()?.as_str(), &node.id);
    }
}

fn watermark(walk: &mut Walk, node: &Node, watermark: &Watermark, input: &Known, at: &str) -> Option<Known> {
    let Some(source) = input.raw_source else {
        let message = "a watermark is declared at its source: between them there are only projections and filters";
        walk.problem(
            "misplaced_watermark",
            message,
            "move it up to the source; unions and windows carry the time attribute on",
            at.to_string(),
        );
        return None;
    };
    let source_node = &walk.graph.nodes[source];
    let Operator::Source(from) = &source_node.operator else { return None };
    for (field, length) in
        [("delay", Some(watermark.delay)), ("idle_timeout", watermark.idle_timeout), ("max_ahead", watermark.max_ahead)]
    {
        let least = if field == "delay" { 0 } else { 1 };
        if length.is_some_and(|length| length.us < least) {
            let bound = if least == 0 { "at least 0" } else { "above 0" };
            walk.problem("out_of_range", format!("{field} is {bound}"), "", format!("{at}/{field}"));
        }
    }
    if watermark.on_null == OnBad::DeadLetter && !has_dead_letters(walk, &source_node.id) {
        let message = format!("the rows of {} without a time have nowhere to go", from.table);
        let hint = "connect a dead_letters node to the source and to a sink, or choose fail or drop";
        walk.problem("no_dead_letters", message, hint, format!("{at}/on_null"));
    }
    let Some(column) = input.facts.schema.column(&watermark.column) else {
        let names: Vec<&str> = input.facts.schema.names().collect();
        let hint = suggestion(&watermark.column, names.iter().copied());
        walk.problem(
            "unknown_column",
            format!("there is no column {}", watermark.column),
            hint,
            format!("{at}/column"),
        );
        return None;
    };
    let Some(unit_us) = column.data_type.time_unit_us() else {
        let message = format!(
            "{} is {}; a time attribute is a TIMESTAMP or TIMESTAMP_LTZ of precision 0, 3 or 6",
            column.name, column.data_type
        );
        let hint = match &column.data_type {
            t if t.is_timestamp() => format!("write CAST({} AS TIMESTAMP(6)) in a projection before it", column.name),
            t if t.is_integer() => format!("write TO_TIMESTAMP_LTZ({}, 3) in a projection before it", column.name),
            DataType::String => format!("write TO_TIMESTAMP({}) in a projection before it", column.name),
            _ => "choose a timestamp".to_string(),
        };
        walk.problem("not_a_time_attribute", message, hint, format!("{at}/column"));
        return None;
    };
    if let SourceConnector::Replay(replay) = &from.connector
        && replay.disorder > watermark.delay
    {
        let message = format!(
            "rows of {} arrive up to {} out of order, and the watermark waits only {}: rows will be late",
            from.table, replay.disorder, watermark.delay
        );
        walk.warning(
            "late_rows_expected",
            message,
            format!("a delay of {} loses none", replay.disorder),
            format!("{at}/delay"),
        );
    }
    if let Some(other) = reads_past(walk.graph, node) {
        let message = format!("{} is also read without this watermark, by {other}", from.table);
        let hint = "let all readers read the watermark, or write a second source for the others";
        walk.problem("misplaced_watermark", message, hint, at.to_string());
        return None;
    }
    let mut known = input.clone();
    known.facts.time = Some(TimeAttribute { column: watermark.column.clone(), unit_us });
    known.facts.order = Some(watermark.column.clone());
    known.raw_source = None;
    known.no_watermark = None;
    Some(known)
}

fn window_assign(walk: &mut Walk, id: &str, assigned: &Window, input: &Known, at: &str) -> Option<Known> {
    let pointer = format!("{at}/window");
    if let Window::Session { .. } | Window::Attached {} = assigned {
        let (what, hint) = match assigned {
            Window::Session { .. } => {
                ("a session is known only with its rows, so it cannot be attached to them", "use window_aggregate")
            }
            _ => ("window_assign makes windows", "choose tumble, hop or cumulate"),
        };
        walk.problem("invalid_window", what, hint, pointer);
        return None;
    }
    for name in WINDOW_COLUMNS {
        if input.facts.schema.index_of(name).is_some() {
            let message = format!("the input already has a column {name}");
            walk.problem(
                "duplicate_column",
                message,
                "give it another name in a projection before the window",
                pointer.clone(),
            );
        }
    }
    let windowing = window::check(walk, id, assigned, input, &pointer)?;
    let mut known = input.clone();
    known.facts.schema.columns.extend(windowing.columns);
    // One row is in several windows, so the old key no longer tells rows apart.
    known.facts.key = known.facts.key.map(|mut key| {
        key.extend(["window_start".to_string(), "window_end".to_string()]);
        key
    });
    known.facts.time = Some(windowing.time);
    known.facts.windowed = true;
    known.raw_source = None;
    Some(known)
}

fn window_aggregate(walk: &mut Walk, id: &str, aggregate: &WindowAggregate, input: &Known, at: &str) -> Option<Known> {
    let windowing = window::check(walk, id, &aggregate.window, input, &format!("{at}/window"));
    if aggregate.allowed_lateness.us < 0 {
        walk.problem("out_of_range", "allowed_lateness is at least 0", "", format!("{at}/allowed_lateness"));
    }
    let names = named(&aggregate.keys, |key| &key.name, format!("{at}/keys"));
    let names = names.chain(WINDOW_COLUMNS.into_iter().map(|name| (name, format!("{at}/window"))));
    let names = names.chain(named(&aggregate.aggregates, |call| &call.name, format!("{at}/aggregates")));
    unique_names(walk, names);
    let keys = keys(walk, &aggregate.keys, input, at);
    let calls = calls(walk, &aggregate.aggregates, input, at);
    let windowing = windowing?;
    let mut key: Vec<String> = aggregate.keys.iter().map(|key| key.name.clone()).collect();
    key.extend(["window_start".to_string(), "window_end".to_string()]);
    let updating = aggregate.allowed_lateness.us > 0 && !walk.bounded;
    let facts = Facts {
        schema: Schema::new(keys.into_iter().chain(windowing.columns).chain(calls).collect()),
        bounded: input.facts.bounded,
        order: Some(windowing.time.column.clone()),
        time: Some(windowing.time),
        changelog: if updating { Changelog::Retract } else { Changelog::InsertOnly },
        key: Some(key),
        windowed: true,
        updates_from: updating.then(|| id.to_string()),
    };
    Some(Known { facts, raw_source: None, no_watermark: None, unstable: BTreeSet::new() })
}

fn aggregate(walk: &mut Walk, id: &str, aggregate: &Aggregate, input: &Known, at: &str) -> Option<Known> {
    if aggregate.keys.is_empty() && aggregate.aggregates.is_empty() {
        walk.problem("no_columns", "an aggregate has keys or aggregates", "", at.to_string());
    }
    let names = named(&aggregate.keys, |key| &key.name, format!("{at}/keys"));
    let names = names.chain(named(&aggregate.aggregates, |call| &call.name, format!("{at}/aggregates")));
    unique_names(walk, names);
    let keys = keys(walk, &aggregate.keys, input, at);
    let calls = calls(walk, &aggregate.aggregates, input, at);
    // A bounded run emits final rows only; that is a matter of the whole graph, since its edges share their epochs.
    let updating = !walk.bounded;
    if !input.facts.bounded && !keys.is_empty() {
        let bytes: usize = 24 + keys.iter().chain(&calls).map(|column| width(&column.data_type)).sum::<usize>();
        let open = aggregate
            .aggregates
            .iter()
            .any(|call| call.distinct || (input.updating() && call.function != AggregateFunction::Count));
        let more = if open { ", and more for each distinct value" } else { "" };
        let message = format!("{id:?} keeps every key for ever: about {bytes} bytes per key{more}");
        walk.warning("state_grows", message, "group by a window too if old keys are no longer needed", at.to_string());
    }
    let facts = Facts {
        schema: Schema::new(keys.into_iter().chain(calls).collect()),
        bounded: input.facts.bounded,
        time: None,
        changelog: if updating { Changelog::Retract } else { Changelog::InsertOnly },
        key: Some(aggregate.keys.iter().map(|key| key.name.clone()).collect()),
        order: None,
        windowed: false,
        updates_from: updating.then(|| id.to_string()),
    };
    Some(Known { facts, raw_source: None, no_watermark: None, unstable: BTreeSet::new() })
}

/// Bytes of a value in state, about.
fn width(t: &DataType) -> usize {
    match t {
        DataType::Boolean | DataType::TinyInt => 1,
        DataType::SmallInt => 2,
        DataType::Int | DataType::Float | DataType::Date => 4,
        DataType::BigInt | DataType::Double | DataType::Time | DataType::Timestamp(_) | DataType::TimestampLtz(_) => 8,
        DataType::Decimal(..) => 16,
        DataType::String | DataType::Bytes => 24,
        DataType::Array(item) => 8 + 4 * width(item),
        DataType::Map(key, value) => 8 + 4 * (width(key) + width(value)),
        DataType::Row(fields) => fields.iter().map(|(_, field)| width(field)).sum(),
    }
}

fn keys(walk: &mut Walk, keys: &[NamedExpr], input: &Known, at: &str) -> Vec<Column> {
    let mut columns = Vec::with_capacity(keys.len());
    for (k, NamedExpr { name, expr }) in keys.iter().enumerate() {
        let pointer = format!("{at}/keys/{k}/expr");
        let Some(compiled) = walk.compile(expr, input, pointer.clone()) else { continue };
        if let DataType::Map(..) = compiled.data_type() {
            walk.problem(
                "type_mismatch",
                format!("the key {name} is a MAP, which has no order"),
                "group by its elements",
                pointer.clone(),
            );
        }
        stable(walk, &compiled, input, pointer);
        columns.push(Column::new(name, compiled.data_type().clone(), compiled.nullable()));
    }
    columns
}

/// Refuses an expression of changing rows that depends on the clock: what is taken back would not be what was counted.
fn stable(walk: &mut Walk, compiled: &crate::Compiled, input: &Known, pointer: String) {
    let names: Vec<&str> = input.facts.schema.names().collect();
    let unstable =
        compiled.volatile() || compiled.columns().iter().any(|column| input.unstable.contains(names[*column]));
    if unstable && input.updating() {
        let message =
            "an aggregate of changing rows cannot depend on the clock: what is taken back would not be what was added";
        walk.problem("non_deterministic_update", message, "compute it before the first aggregation", pointer);
    }
}

fn calls(walk: &mut Walk, calls: &[AggregateCall], input: &Known, at: &str) -> Vec<Column> {
    let mut columns = Vec::with_capacity(calls.len());
    for (a, call) in calls.iter().enumerate() {
        let at = format!("{at}/aggregates/{a}");
        let name = call.function.name();
        if call.args.len() > 1 {
            walk.problem(
                "wrong_arguments",
                format!("{name} takes one argument, not {}", call.args.len()),
                "",
                format!("{at}/args"),
            );
            continue;
        }
        if let Some(filter) = &call.filter {
            let pointer = format!("{at}/filter");
            if let Some(compiled) = walk.compile(filter, input, pointer.clone()) {
                if *compiled.data_type() != DataType::Boolean {
                    let message = format!("FILTER wants BOOLEAN, not {}", compiled.data_type());
                    walk.problem("type_mismatch", message, "write a comparison, such as x <> 0", pointer.clone());
                }
                stable(walk, &compiled, input, pointer);
            }
        }
        let mut argument = None;
        if let Some(text) = call.args.first() {
            let pointer = format!("{at}/args/0");
            let Some(compiled) = walk.compile(text, input, pointer.clone()) else { continue };
            stable(walk, &compiled, input, pointer);
            argument = Some(compiled.data_type().clone());
        }
        if call.function == AggregateFunction::ApproxPercentile && input.updating() {
            let message = format!(
                "{name} cannot take back a row, and the result of {:?} is updating",
                input.facts.updates_from.clone().unwrap_or_default()
            );
            walk.problem(
                "cannot_retract",
                message,
                "aggregate before, in windows; count, sum, avg, min, max, stddev and var take changing rows",
                at.clone(),
            );
        }
        if let AggregateFunction::FirstValue | AggregateFunction::LastValue = call.function
            && input.facts.order.is_none()
        {
            let message = format!("{name} goes by the time attribute, and the input has none");
            let extreme = if call.function == AggregateFunction::FirstValue { "smallest" } else { "largest" };
            let hint = "declare a watermark on the source, or use min or max";
            match input.facts.bounded {
                false => walk.problem("no_time_attribute", message, hint, at.clone()),
                true => walk.warning(
                    "no_time_attribute",
                    format!("{message}: all rows tie, and it gives the {extreme} value"),
                    hint,
                    at.clone(),
                ),
            }
        }
        match aggregate_type(call, argument.as_ref()) {
            Ok((data_type, nullable)) => columns.push(Column::new(&call.name, data_type, nullable)),
            Err(error) => walk.problems.push(expression_problem(&error, "", at)),
        }
    }
    columns
}

fn sort(walk: &mut Walk, id: &str, sort: &Sort, input: &Known, at: &str) -> Option<Known> {
    if sort.by.is_empty() && sort.limit.is_none() && sort.offset == 0 {
        walk.problem("no_columns", "a sort has an order or a limit", "", at.to_string());
    }
    for (k, key) in sort.by.iter().enumerate() {
        let pointer = format!("{at}/by/{k}/expr");
        if let Some(compiled) = walk.compile(&key.expr, input, pointer.clone())
            && let DataType::Map(..) = compiled.data_type()
        {
            walk.problem("type_mismatch", "a MAP has no order", "sort by its elements", pointer);
        }
    }
    if input.facts.bounded && input.updating() {
        let from = input.facts.updates_from.clone().unwrap_or_default();
        let message =
            format!("{id:?} cannot order the changing rows of {from:?}, which is beside a stream in this graph");
        walk.problem(
            "sort_updates",
            message,
            "put it into a graph of its own, where all sources are bounded",
            at.to_string(),
        );
    }
    if !input.facts.bounded {
        let what = if sort.by.is_empty() { "LIMIT" } else { "ORDER BY" };
        let message = format!("{what} at {id:?} would wait for the end of a stream that has none");
        let hint = "aggregate by windows and order the result where it is read, or bound the source";
        walk.problem("sort_unbounded", message, hint, at.to_string());
    }
    Some(input.clone())
}

/// What only the view as a whole can tell about its options.
fn view(walk: &mut Walk, sink: &Sink, at: &str) {
    let (Some(name), SinkConnector::View(options)) = (sink.view_name(), &sink.connector) else { return };
    if !is_view_name(name) {
        let message = format!("a view cannot be called {name:?}");
        let hint = format!("{VIEW_NAMES}; 'view.name' gives it another name than its table's");
        walk.problem("invalid_view_name", message, hint, format!("{at}/connector"));
    }
    let others = walk.graph.nodes.iter().filter_map(|node| match &node.operator {
        Operator::Sink(other) if !std::ptr::eq(other, sink) => Some(other),
        _ => None,
    });
    let others: Vec<&Sink> = others.filter(|other| other.view_name() == Some(name)).collect();
    if let Some(other) = others.first() {
        let message = format!("{} and {} both write the view {name}", sink.table, other.table);
        walk.problem("duplicate_view", message, "give one of them another 'view.name'", format!("{at}/connector"));
    }
    if !sink.primary_key.is_empty() {
        let given =
            [("retention.rows", options.retention_rows.is_some()), ("retention.age", options.retention_age.is_some())];
        for (option, _) in given.iter().filter(|(_, given)| *given) {
            let message = format!("'{option}' removes old rows, and the view {name} keeps a row per key");
            let hint = "remove the option, or the primary key";
            walk.problem("invalid_option", message, hint, format!("{at}/connector/{option}"));
        }
    }
}

fn sink(walk: &mut Walk, sink: &Sink, input: &Known, at: &str) -> Option<Known> {
    let from = &input.facts.schema.columns;
    let columns: Vec<Column> = if sink.columns.is_empty() { from.clone() } else { sink.columns.clone() };
    unique_names(walk, named(&sink.columns, |column| &column.name, format!("{at}/columns")));
    if columns.len() != from.len() {
        let names: Vec<&str> = from.iter().map(|column| column.name.as_str()).collect();
        let message =
            format!("{} has {} columns, and {} come in: {}", sink.table, columns.len(), from.len(), names.join(", "));
        walk.problem(
            "sink_mismatch",
            message,
            "columns are matched by position; project as many as the table has",
            format!("{at}/columns"),
        );
    } else {
        for (c, (own, given)) in columns.iter().zip(from).enumerate() {
            if !casts_implicitly(&given.data_type, &own.data_type) {
                let message = format!(
                    "column {} of {} is {} {}, and {} {} comes in",
                    c + 1,
                    sink.table,
                    own.name,
                    own.data_type,
                    given.name,
                    given.data_type
                );
                let hint = format!("columns are matched by position; write CAST({} AS {})", given.name, own.data_type);
                walk.problem("sink_mismatch", message, hint, format!("{at}/columns/{c}/type"));
            }
        }
    }
    for (k, name) in sink.primary_key.iter().enumerate() {
        let pointer = format!("{at}/primary_key/{k}");
        if !columns.iter().any(|column| column.name == *name) {
            let hint = suggestion(name, columns.iter().map(|column| column.name.as_str()));
            walk.problem("unknown_column", format!("there is no column {name} for the primary key"), hint, pointer);
        } else if sink.primary_key[..k].contains(name) {
            walk.problem("duplicate_column", format!("{name} is twice in the primary key"), "", pointer);
        }
    }
    partition_columns(walk, &sink.partition_by, &columns, at);
    let kafka = matches!(sink.connector, SinkConnector::Kafka(_));
    metadata_columns(walk, &sink.metadata, &columns, (kafka, true), at);
    view(walk, sink, at);
    if input.updating() && !sink.takes_updates() {
        let from = input.facts.updates_from.clone().unwrap_or_default();
        let kind = walk.graph.node(&from).map_or("node", |node| node.operator.type_name());
        let message = format!(
            "{} ({}) only adds rows, and the {kind} {from:?} changes rows that it has given",
            sink.table,
            sink.connector.name()
        );
        let keyed = matches!(sink.connector, SinkConnector::Kafka(_));
        let hint = match kind {
            _ if keyed => {
                "declare PRIMARY KEY (...) NOT ENFORCED: the records are then upserts by key, with tombstones for deleted rows"
            }
            _ if matches!(sink.connector, SinkConnector::Postgres(_)) => {
                "declare PRIMARY KEY (...) NOT ENFORCED: then rows are upserted and deleted by key"
            }
            _ if sink.view_name().is_some() => {
                "declare PRIMARY KEY (...) NOT ENFORCED: then the view keeps a row per key"
            }
            "window_aggregate" => {
                "set allowed_lateness to 0, write to a sink that takes changes (print, blackhole), or bound the sources"
            }
            _ => {
                "group by a window too, write to a sink that takes changes (print, blackhole), or bound the sources: then the final rows are written"
            }
        };
        walk.problem("sink_takes_no_updates", message, hint, format!("{at}/connector"));
    }
    let mut known = input.clone();
    if input.updating() && !sink.primary_key.is_empty() {
        known.facts.changelog = Changelog::Upsert(sink.primary_key.clone());
    }
    known.facts.key = (!sink.primary_key.is_empty()).then(|| sink.primary_key.clone());
    known.facts.schema = Schema::new(columns);
    Some(known)
}
