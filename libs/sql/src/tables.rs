//! Tables: columns and options of CREATE TABLE to the nodes of a source, and to a sink.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Ident, Spanned};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::connector::{SINK_CONNECTORS, SOURCE_CONNECTORS, is_left_behind, plain_name};
use graph::kafka::FieldsInclude;
use graph::{
    Column, DataType, OnBad, Operator, Period, Place, Problem, Schema, Sink, SinkConnector, Source, SourceConnector,
    Watermark, nearest,
};
use serde_json::{Map, Value};

use crate::ddl::{ColumnKind, TableDefinition, TableOption};
use crate::nodes::NodeSpans;
use crate::place;
use crate::planner::{Entry, Planner};
use crate::query::{Planned, Refused};
use crate::relation::{NotFound, Output, Relation, Windows, column, find};

/// Options of a table that are not its connector's.
const GENERIC: [&str; 4] = ["on_bad_record", "null_event_time", "scan.watermark.idle-timeout", "max_ahead"];

pub struct Table {
    pub definition: TableDefinition,
    /// The columns as they stand in files and messages: what INSERT INTO fills.
    pub physical: Vec<Column>,
    /// The table as a source, where its connector can be one.
    source: Option<Relation>,
}

/// The generic options, read.
#[derive(Default)]
struct Policies {
    on_bad_record: OnBad,
    on_null: OnBad,
    idle_timeout: Option<Period>,
    max_ahead: Option<Period>,
}

impl Table {
    /// The columns that a source of the table gives, in their order.
    fn readable(&self) -> Vec<Column> {
        let columns = self.definition.columns.iter().filter_map(|defined| match &defined.kind {
            ColumnKind::Physical { data_type, nullable } | ColumnKind::Metadata { data_type, nullable, .. } => {
                Some(Column::new(defined.name.value.clone(), data_type.clone(), *nullable))
            }
            ColumnKind::Computed(_) => None,
        });
        columns.collect()
    }

    /// What the metadata columns hold, by name; `written`: only those that are.
    fn metadata(&self, written: bool) -> BTreeMap<String, String> {
        let columns = self.definition.columns.iter().filter_map(|defined| match &defined.kind {
            ColumnKind::Metadata { key, read_only, .. } if !(written && *read_only) => {
                Some((defined.name.value.clone(), key.clone()))
            }
            _ => None,
        });
        columns.collect()
    }

    /// The names of the columns that are computed.
    pub fn computed(&self) -> impl Iterator<Item = &Ident> {
        let columns = self.definition.columns.iter();
        columns.filter(|column| matches!(column.kind, ColumnKind::Computed(_))).map(|column| &column.name)
    }
}

/// A topic's key columns are the primary key, unless the table says otherwise: what a sink leaves out of the values is read from the keys.
fn keyed(mut connector: SourceConnector, definition: &TableDefinition) -> SourceConnector {
    if let SourceConnector::Kafka(options) = &mut connector
        && options.key_columns().is_empty()
        && options.value_fields == FieldsInclude::ExceptKey
    {
        let names: Vec<&str> = definition.primary_key.iter().map(|name| name.value.as_str()).collect();
        options.key_fields = names.join(";");
    }
    connector
}

impl Planner<'_> {
    /// A table that is given another connector from outside leaves behind the options that only its own one has a meaning for.
    fn leave_behind(&self, definition: &mut TableDefinition) {
        let name = &definition.name.value;
        let given = self.options.overrides.iter().rfind(|(table, option, _)| table == name && option == "connector");
        let own = definition.options.iter().find(|option| option.key == "connector");
        let Some((was, now)) = own.map(|own| own.value.clone()).zip(given.map(|(_, _, now)| now.as_str())) else {
            return;
        };
        let reads = SOURCE_CONNECTORS.contains(&plain_name(now).as_str());
        definition.options.retain(|option| {
            let of_sources = GENERIC.contains(&option.key.as_str());
            !is_left_behind(&option.key, &was, now) && (reads || !of_sources)
        });
    }

    /// Checks a definition and, if its connector can be read, plans the source.
    pub fn table(&mut self, mut definition: TableDefinition) -> Planned<Table> {
        let before = self.problems.len();
        self.leave_behind(&mut definition);
        for (table, option, value) in &self.options.overrides {
            if *table == definition.name.value {
                match definition.options.iter_mut().find(|known| known.key == *option) {
                    Some(known) => known.value = value.clone(),
                    None => definition.options.push(TableOption {
                        key: option.clone(),
                        value: value.clone(),
                        span: definition.options_span,
                    }),
                }
            }
        }
        for (position, defined) in definition.columns.iter().enumerate() {
            if definition.columns[..position].iter().any(|other| other.name.value == defined.name.value) {
                let message = format!("the column {} is declared twice", defined.name.value);
                self.problem("duplicate_column", message, "rename one", defined.name.span);
            }
        }
        let physical: Vec<Column> = definition
            .columns
            .iter()
            .filter_map(|defined| match &defined.kind {
                ColumnKind::Physical { data_type, nullable } => {
                    Some(Column::new(defined.name.value.clone(), data_type.clone(), *nullable))
                }
                ColumnKind::Metadata { data_type, nullable, read_only: false, .. } => {
                    Some(Column::new(defined.name.value.clone(), data_type.clone(), *nullable))
                }
                ColumnKind::Computed(_) | ColumnKind::Metadata { .. } => None,
            })
            .collect();
        if physical.is_empty() {
            let message = format!("the table {} has no columns", definition.name.value);
            self.problem(
                "wrong_columns",
                message,
                "declare the columns of its rows: (name TYPE, ...)",
                definition.name.span,
            );
        }
        self.known_columns(&mut definition.primary_key, &physical, "the primary key");
        self.known_columns(&mut definition.partitioned_by, &physical, "PARTITIONED BY");
        let mut table = Table { definition, physical, source: None };
        if let Ok(connector) = self.connector_name(&table) {
            if SOURCE_CONNECTORS.contains(&connector.as_str()) {
                table.source = self.source(&table).ok();
            } else {
                let _ = self.sink_of(&table);
            }
        }
        if self.problems.len() == before { Ok(table) } else { Err(Refused) }
    }

    fn known_columns(&mut self, names: &mut [Ident], columns: &[Column], what: &str) {
        for name in names {
            match find(&name.value, columns.iter().map(|column| column.name.as_str())) {
                Ok(at) => name.value = columns[at].name.clone(),
                Err(NotFound::Unknown(hint) | NotFound::Ambiguous(hint)) => {
                    self.problem(
                        "unknown_column",
                        format!("{what} names {}, which is no column of the table", name.value),
                        hint,
                        name.span,
                    );
                }
            }
        }
    }

    fn connector_name(&mut self, table: &Table) -> Planned<String> {
        let definition = &table.definition;
        let known: Vec<&str> = {
            let mut known: Vec<&str> = SOURCE_CONNECTORS.iter().chain(SINK_CONNECTORS).copied().collect();
            known.sort_unstable();
            known.dedup();
            known
        };
        let Some(option) = definition.options.iter().find(|option| option.key == "connector") else {
            let message = format!("the table {} names no connector", definition.name.value);
            let hint = format!("write WITH ('connector' = ...); there is {}", known.join(", "));
            return Err(self.problem("missing_option", message, hint, definition.options_span));
        };
        let name = plain_name(&option.value);
        if known.contains(&name.as_str()) {
            return Ok(name);
        }
        let hint = match name.as_str() {
            "upsert-kafka" => {
                "write 'connector' = 'kafka' and PRIMARY KEY (...) NOT ENFORCED: rows are then upserted by key"
                    .to_string()
            }
            "jdbc" | "postgresql" => "write 'connector' = 'postgres' with host, database, user and table".to_string(),
            "kinesis" => "it is not there yet; 'filesystem' and 'replay' read files".to_string(),
            other => graph::suggestion(other, known.iter().copied()),
        };
        let (message, span) = (format!("there is no connector '{}'", option.value), option.span);
        Err(self.problem("unknown_connector", message, hint, span))
    }

    /// The connector's own options as JSON, the generic ones left out.
    fn connector_options(table: &Table) -> Map<String, Value> {
        let options = table.definition.options.iter().filter(|option| !GENERIC.contains(&option.key.as_str()));
        options
            .map(|option| match option.key.as_str() {
                "connector" => ("type".to_string(), Value::String(plain_name(&option.value))),
                _ => (option.key.clone(), Value::String(option.value.clone())),
            })
            .collect()
    }

    fn option_problems(&mut self, table: &Table, found: Vec<Problem>) -> Refused {
        for problem in found {
            let key = match &problem.place {
                Place::Pointer { pointer } => pointer.trim_start_matches('/').replace("~1", "/").replace("~0", "~"),
                _ => String::new(),
            };
            let key = if key == "type" { "connector" } else { key.as_str() };
            let span = table
                .definition
                .options
                .iter()
                .find(|option| option.key == key)
                .map_or(table.definition.options_span, |option| option.span);
            // The generic options are known here, not to the connector.
            let near = nearest(key, GENERIC).filter(|_| problem.code == "unknown_option");
            let missing = problem
                .message
                .strip_prefix("missing field `")
                .and_then(|rest| rest.split('`').next())
                .map(str::to_string);
            let problem = match (near, missing) {
                (Some(near), _) => problem.hint(format!("did you mean {near}?")),
                (None, Some(missing)) => {
                    let message = format!("the table {} lacks the option '{missing}'", table.definition.name.value);
                    Problem::new("missing_option", message).hint(format!("add '{missing}' = '...'"))
                }
                (None, None) => problem,
            };
            self.problems.push(problem.at(place(span)));
        }
        Refused
    }

    fn policies(&mut self, table: &Table) -> Policies {
        let mut policies = Policies::default();
        for option in &table.definition.options {
            let mut bad = |this: &mut OnBad| match option.value.trim().to_lowercase().replace('-', "_").as_str() {
                "fail" => *this = OnBad::Fail,
                "drop" => *this = OnBad::Drop,
                "dead_letter" => *this = OnBad::DeadLetter,
                _ => {
                    let message = format!("'{}' cannot be '{}'", option.key, option.value);
                    self.problems.push(
                        Problem::new("invalid_option", message)
                            .hint("write fail, drop or dead_letter")
                            .at(place(option.span)),
                    );
                }
            };
            let read = match option.key.as_str() {
                "on_bad_record" => {
                    bad(&mut policies.on_bad_record);
                    Ok(None)
                }
                "null_event_time" => {
                    bad(&mut policies.on_null);
                    Ok(None)
                }
                "scan.watermark.idle-timeout" => option.value.parse::<Period>().map(|period| Some((period, true))),
                "max_ahead" => option.value.parse::<Period>().map(|period| Some((period, false))),
                _ => continue,
            };
            match read {
                Ok(None) => {}
                Ok(Some((period, _))) if period.us <= 0 => {
                    self.problem(
                        "invalid_option",
                        format!("'{}' must be above 0", option.key),
                        "write '30s', for example",
                        option.span,
                    );
                }
                Ok(Some((period, true))) => policies.idle_timeout = Some(period),
                Ok(Some((period, false))) => policies.max_ahead = Some(period),
                Err(reason) => {
                    self.problem(
                        "invalid_option",
                        format!("cannot read '{}': {reason}", option.key),
                        "write '30s', for example",
                        option.span,
                    );
                }
            }
            if option.key != "on_bad_record" && table.definition.watermark.is_none() {
                let message = format!(
                    "'{}' needs a watermark, and the table {} declares none",
                    option.key, table.definition.name.value
                );
                self.problem(
                    "invalid_option",
                    message,
                    "declare WATERMARK FOR column AS column - INTERVAL '5' SECOND",
                    option.span,
                );
            }
        }
        policies
    }

    /// Source, computed columns, watermark.
    fn source(&mut self, table: &Table) -> Planned<Relation> {
        let definition = &table.definition;
        let policies = self.policies(table);
        let connector = match SourceConnector::from_options(&Self::connector_options(table), "") {
            Ok(connector) => Some(keyed(connector, definition)),
            Err(found) => {
                self.option_problems(table, found);
                None
            }
        };
        // Partition columns stand in the path, not in the rows: they are the last of the source.
        let partition_by: Vec<String> = definition.partitioned_by.iter().map(|name| name.value.clone()).collect();
        let (mut columns, mut last): (Vec<Column>, Vec<Column>) =
            table.readable().into_iter().partition(|c| !partition_by.contains(&c.name));
        last.sort_by_key(|column| partition_by.iter().position(|name| *name == column.name));
        columns.append(&mut last);
        let schema = Schema::new(columns.clone());
        let mut computed_fail = false;
        let outputs: Vec<Output> = definition
            .columns
            .iter()
            .filter_map(|defined| {
                let span = defined.name.span;
                match &defined.kind {
                    ColumnKind::Physical { data_type, nullable } | ColumnKind::Metadata { data_type, nullable, .. } => {
                        let (name, data_type) = (defined.name.value.clone(), data_type.clone());
                        Some(Output { expr: column(&name, span), name, data_type, nullable: *nullable, span })
                    }
                    ColumnKind::Computed(expr) => {
                        let output = self.computed(&defined.name, expr, &schema);
                        computed_fail |= output.is_err();
                        output.ok()
                    }
                }
            })
            .collect();
        let watermark = self.watermark(table, &outputs);
        let (Some(connector), false, Ok(watermark)) = (connector, computed_fail, watermark) else {
            return Err(Refused);
        };
        let name = definition.name.value.clone();
        let mut spans = NodeSpans::new(definition.name.span).part("/connector", definition.options_span);
        for option in &definition.options {
            spans = match option.key.as_str() {
                "connector" => spans.part("/connector/type", option.span),
                "on_bad_record" => spans.part("/on_bad_record", option.span),
                other => spans.part(format!("/connector/{}", other.replace('~', "~0").replace('/', "~1")), option.span),
            };
        }
        for (position, column) in columns.iter().enumerate() {
            if let Some(defined) = definition.columns.iter().find(|defined| defined.name.value == column.name) {
                spans = spans.part(format!("/columns/{position}"), defined.name.span);
            }
        }
        let source = Source {
            table: name.clone(),
            connector,
            columns,
            on_bad_record: policies.on_bad_record,
            partition_by,
            metadata: table.metadata(false),
        };
        let node = self.nodes.add_named(name, Operator::Source(source), Vec::new(), schema, spans);
        let relation = Relation { node, outputs, windows: Windows::None, span: definition.name.span };
        let mut relation = self.projected(relation, false);
        if let Some((column, delay)) = watermark {
            let at = definition.watermark.as_ref().expect("it was read from there");
            let span = at.column.span.union(&at.expr.span());
            let mut spans = NodeSpans::new(span).part("/column", at.column.span).part("/delay", at.expr.span());
            for option in &definition.options {
                spans = match option.key.as_str() {
                    "null_event_time" => spans.part("/on_null", option.span),
                    "scan.watermark.idle-timeout" => spans.part("/idle_timeout", option.span),
                    "max_ahead" => spans.part("/max_ahead", option.span),
                    _ => spans,
                };
            }
            let Policies { on_null, idle_timeout, max_ahead, .. } = policies;
            let operator = Operator::Watermark(Watermark { column, delay, idle_timeout, max_ahead, on_null });
            let schema = self.nodes.schema(relation.node).clone();
            relation.node = self.nodes.add(operator, vec![relation.node], schema, spans);
        }
        Ok(relation)
    }

    fn computed(&mut self, name: &Ident, expr: &Expr, schema: &Schema) -> Planned<Output> {
        let columns = schema.columns.iter();
        let outputs = columns.map(|c| Output {
            name: c.name.clone(),
            expr: column(&c.name, name.span),
            data_type: c.data_type.clone(),
            nullable: c.nullable,
            span: name.span,
        });
        let names = crate::query::names_of(outputs.collect(), name.span);
        let resolved = names.names("a computed column", false).resolve(expr, &mut self.problems).ok_or(Refused)?;
        let span = name.span.union(&expr.span());
        let (data_type, nullable) = self.typed(&resolved, schema, span)?;
        Ok(Output { name: name.value.clone(), expr: resolved, data_type, nullable, span })
    }

    /// The column and the delay of `WATERMARK FOR column AS column - INTERVAL ...`.
    fn watermark(&mut self, table: &Table, outputs: &[Output]) -> Planned<Option<(String, Period)>> {
        let Some(watermark) = &table.definition.watermark else { return Ok(None) };
        let named = |name: &Ident| find(&name.value, outputs.iter().map(|output| output.name.as_str()));
        let at = match named(&watermark.column) {
            Ok(at) => at,
            Err(NotFound::Unknown(hint) | NotFound::Ambiguous(hint)) => {
                // A computed column that was refused is missing here, and was reported.
                let declared =
                    table.definition.columns.iter().any(|defined| defined.name.value == watermark.column.value);
                if declared {
                    return Err(Refused);
                }
                let message =
                    format!("the watermark is for {}, which is no column of the table", watermark.column.value);
                return Err(self.problem("unknown_column", message, hint, watermark.column.span));
            }
        };
        let Output { name, data_type, .. } = &outputs[at];
        if data_type.time_unit_us().is_none() {
            let message = format!(
                "{name} is {data_type}; a watermark is for a TIMESTAMP or TIMESTAMP_LTZ of precision 0, 3 or 6"
            );
            let to_time = match data_type {
                t if t.is_timestamp() => Some(format!("CAST({name} AS TIMESTAMP(6))")),
                t if t.is_integer() => Some(format!("TO_TIMESTAMP_LTZ({name}, 3)")),
                DataType::String => Some(format!("TO_TIMESTAMP({name})")),
                _ => None,
            };
            let hint = to_time.map_or("choose a column that is a time".to_string(), |to_time| {
                format!("add the column `time` AS {to_time}, and declare the watermark for it")
            });
            return Err(self.problem("not_a_time_attribute", message, hint, watermark.column.span));
        }
        let span = if watermark.expr.span() == Span::empty() { watermark.column.span } else { watermark.expr.span() };
        let same = |expr: &Expr| matches!(expr, Expr::Identifier(name) if named(name).ok() == Some(at));
        let delay = match &watermark.expr {
            expr if same(expr) => Some(Period::ZERO),
            Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if same(left) => {
                match crate::period::read(right, "the watermark's delay", span) {
                    Ok(delay) => Some(delay),
                    Err(problem) => {
                        self.problems.push(problem);
                        return Err(Refused);
                    }
                }
            }
            _ => None,
        };
        let column = outputs[at].name.clone();
        match delay {
            Some(delay) if delay.us >= 0 => Ok(Some((column, delay))),
            _ => {
                let message = format!(
                    "cannot use {} as a watermark: it is the column, or the column less an interval",
                    watermark.expr
                );
                let hint = format!("write WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND");
                Err(self.problem("invalid_watermark", message, hint, span))
            }
        }
    }

    /// The table in FROM.
    pub fn scan(&mut self, name: &str, at: Span) -> Planned<Relation> {
        match self.entries.get(name) {
            Some(Entry::View(relation)) => Ok(Relation { span: at, ..relation.clone() }),
            Some(Entry::Table(table)) => match &table.source {
                Some(relation) => Ok(Relation { span: at, ..relation.clone() }),
                None => {
                    let connector = table
                        .definition
                        .options
                        .iter()
                        .find(|option| option.key == "connector")
                        .map(|option| option.value.clone());
                    let message =
                        format!("the table {name} cannot be read: '{}' is no source", connector.unwrap_or_default());
                    Err(self.problem(
                        "unknown_connector",
                        message,
                        format!("sources are {}", SOURCE_CONNECTORS.join(", ")),
                        at,
                    ))
                }
            },
            _ => Err(Refused),
        }
    }

    /// Checks that a table can be written.
    pub fn sink_connector(&mut self, name: &str) -> Planned<()> {
        let Some(Entry::Table(table)) = self.entries.remove(name) else { return Err(Refused) };
        let result = self.sink_of(&table).map(|_| ());
        self.entries.insert(name.to_string(), Entry::Table(table));
        result
    }

    /// The table as a sink.
    pub fn sink(&mut self, name: &str) -> Planned<Sink> {
        let Some(Entry::Table(table)) = self.entries.remove(name) else { return Err(Refused) };
        let sink = self.sink_of(&table);
        self.entries.insert(name.to_string(), Entry::Table(table));
        sink
    }

    fn sink_of(&mut self, table: &Table) -> Planned<Sink> {
        let definition = &table.definition;
        let connector = SinkConnector::from_options(&Self::connector_options(table), "")
            .map_err(|found| self.option_problems(table, found))?;
        if !SOURCE_CONNECTORS.contains(&connector.name()) {
            for option in definition.options.iter().filter(|option| GENERIC.contains(&option.key.as_str())) {
                let message =
                    format!("'{}' says how records are read, and '{}' is only written", option.key, connector.name());
                self.problem("unknown_option", message, "remove it", option.span);
            }
        }
        Ok(Sink {
            table: definition.name.value.clone(),
            connector,
            columns: table.physical.clone(),
            primary_key: definition.primary_key.iter().map(|name| name.value.clone()).collect(),
            partition_by: definition.partitioned_by.iter().map(|name| name.value.clone()).collect(),
            metadata: table.metadata(true),
        })
    }

    pub fn sink_spans(&self, name: &str, insert: Span) -> NodeSpans {
        let mut spans = NodeSpans::new(insert);
        if let Some(Entry::Table(table)) = self.entries.get(name) {
            spans = spans.part("/connector", table.definition.options_span);
            for option in &table.definition.options {
                let key = if option.key == "connector" {
                    "type".to_string()
                } else {
                    option.key.replace('~', "~0").replace('/', "~1")
                };
                spans = spans.part(format!("/connector/{key}"), option.span);
            }
            for (position, column) in table.physical.iter().enumerate() {
                if let Some(defined) = table.definition.columns.iter().find(|defined| defined.name.value == column.name)
                {
                    spans = spans.part(format!("/columns/{position}"), defined.name.span);
                }
            }
            if let Some(name) = table.definition.partitioned_by.first() {
                spans = spans.part("/partition_by", name.span);
            }
            if let Some(name) = table.definition.primary_key.first() {
                spans = spans.part("/primary_key", name.span);
            }
        }
        spans
    }
}
