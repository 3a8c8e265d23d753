//! Statement by statement to a graph.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::{Expr, Ident, ObjectName, Query, Spanned, Value as Literal};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{
    Column, DataType, DeadLetters, Graph, LateRows, NODES_MAX, Operator, Period, Place, Problem, Project, Schema,
    Settings, Sink, SinkConnector, Union,
    connector::{PrintOptions, is_secret_option},
};
use serde_json::{Map, Value};

use crate::nodes::{NodeRef, NodeSpans, Nodes};
use crate::query::{Ctes, Planned, Refused};
use crate::relation::{NotFound, Output, Relation, Scope, Windows, column, find, unique};
use crate::resolve::without_parentheses;
use crate::script::{Kind, Statement};
use crate::tables::Table;
use crate::{Options, Script, TableDescription, place, script, types};

/// The schema of the tables that every script has.
pub const SYSTEM: &str = "highwater";
pub const SYSTEM_TABLES: [&str; 2] = ["late_rows", "dead_letters"];

/// The setting that gives the windows of the statements after it an allowed lateness.
const ALLOW_LATENESS: &str = "table.exec.emit.allow-lateness";

/// The sink of a SELECT that is not inserted anywhere.
const RESULT: &str = "result";

/// What a name stands for.
pub enum Entry {
    Table(Box<Table>),
    View(Relation),
    /// Its statement was refused; its uses are not reported again.
    Broken,
}

pub struct Planner<'a> {
    pub options: &'a Options,
    pub nodes: Nodes,
    pub problems: Vec<Problem>,
    pub entries: BTreeMap<String, Entry>,
    pub env: expr::Env,
    pub lateness: Period,
    pub lateness_span: Span,
    /// Window operators and sources, once all statements that do not read the system tables are planned.
    system: Option<(Vec<NodeRef>, Vec<NodeRef>)>,
    settings: Map<String, Value>,
    setting_spans: BTreeMap<String, Span>,
    /// Per sink table what goes into it.
    inserts: BTreeMap<String, Vec<NodeRef>>,
    insert_spans: BTreeMap<String, Span>,
    result: Option<(NodeRef, Span)>,
    /// Whether some statement, be it refused, reads `highwater.dead_letters`.
    reads_dead_letters: bool,
    /// Tables of the catalogue that the script does not name.
    unnamed: Vec<String>,
}

pub fn plan(text: &str, options: &Options) -> Result<Script, Vec<Problem>> {
    let (statements, problems) = script::read(text);
    let explain = statements.iter().any(|statement| statement.explain);
    let mut planner = Planner::new(options, problems);
    planner.know(&options.catalog, &statements);
    let last = statements.len();
    let mut later: Vec<(usize, Statement)> = Vec::new();
    let mut later_names: Vec<String> = Vec::new();
    for (at, statement) in statements.into_iter().enumerate() {
        // What reads the ledgers comes after everything that can write to them.
        let has = |word: &str| statement.words.binary_search_by(|known| known.as_str().cmp(word)).is_ok();
        let waits =
            (has(SYSTEM) && SYSTEM_TABLES.iter().any(|table| has(table))) || later_names.iter().any(|name| has(name));
        planner.reads_dead_letters |= has(SYSTEM) && has(SYSTEM_TABLES[1]);
        if !waits || matches!(statement.kind, Kind::CreateTable(_) | Kind::Set { .. }) {
            planner.statement(statement, at + 1 == last);
            continue;
        }
        if let Kind::CreateView(view) = &statement.kind {
            later_names.push(view.name.value.to_lowercase());
        }
        later.push((at, statement));
    }
    planner.open_system_tables();
    for (at, statement) in later {
        planner.statement(statement, at + 1 == last);
    }
    planner.finish(explain)
}

/// The name that a statement gives.
fn created(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::CreateTable(table) => Some(table.name.value.as_str()),
        Kind::CreateView(view) => Some(view.name.value.as_str()),
        Kind::Broken { creates } => creates.as_deref(),
        _ => None,
    }
}

impl<'a> Planner<'a> {
    fn new(options: &'a Options, problems: Vec<Problem>) -> Planner<'a> {
        Planner {
            options,
            nodes: Nodes::default(),
            problems,
            entries: BTreeMap::new(),
            env: expr::Env::default(),
            lateness: Period::ZERO,
            lateness_span: Span::empty(),
            system: None,
            settings: Map::new(),
            setting_spans: BTreeMap::new(),
            inserts: BTreeMap::new(),
            insert_spans: BTreeMap::new(),
            result: None,
            reads_dead_letters: false,
            unnamed: Vec::new(),
        }
    }

    /// Tables of the catalogue that the script names, but for those whose names it gives itself. What is wrong with another one is no matter of
    /// this script.
    fn know(&mut self, catalog: &[String], statements: &[Statement]) {
        let own: Vec<&str> = statements.iter().filter_map(|statement| created(&statement.kind)).collect();
        for text in catalog {
            let (known, problems) = script::read_elsewhere(text);
            let names: Vec<&str> = known.iter().filter_map(|statement| created(&statement.kind)).collect();
            let named = |name: &&str| {
                let name = name.to_lowercase();
                statements.iter().any(|statement| statement.words.binary_search(&name).is_ok())
            };
            if !names.iter().any(named) {
                self.unnamed.extend(names.into_iter().map(String::from));
                continue;
            }
            self.problems.extend(problems);
            for statement in known {
                let Kind::CreateTable(definition) = statement.kind else { continue };
                let name = definition.name.value.clone();
                if own.contains(&name.as_str()) || self.entries.contains_key(&name) {
                    continue;
                }
                let entry = self.table(*definition).map_or(Entry::Broken, |table| Entry::Table(Box::new(table)));
                self.entries.insert(name, entry);
            }
        }
    }

    pub fn problem(&mut self, code: &str, message: impl Into<String>, hint: impl Into<String>, span: Span) -> Refused {
        self.problems.push(Problem::new(code, message).hint(hint).at(place(span)));
        Refused
    }

    pub fn unsupported(&mut self, what: impl std::fmt::Display, hint: &str, span: Span) -> Refused {
        self.problem("unsupported", format!("{what} is not supported"), hint, span)
    }

    fn statement(&mut self, statement: Statement, is_last: bool) {
        let span = statement.span;
        if self.nodes.len() > NODES_MAX {
            return;
        }
        match statement.kind {
            Kind::Set { key, value } => self.set(key, value, span),
            Kind::Broken { creates } => {
                if let Some(name) = creates {
                    self.entries.entry(name).or_insert(Entry::Broken);
                }
            }
            Kind::CreateTable(definition) => {
                let name = definition.name.clone();
                if self.is_new(&name, definition.if_not_exists) {
                    let entry = self.table(*definition).map_or(Entry::Broken, |table| Entry::Table(Box::new(table)));
                    self.entries.insert(name.value, entry);
                }
            }
            Kind::CreateView(view) => {
                if self.is_new(&view.name, view.if_not_exists) {
                    let relation = self
                        .query(&view.query, &Ctes::default())
                        .and_then(|relation| self.renamed(relation, &view.columns, &view.name));
                    self.entries.insert(view.name.value, relation.map_or(Entry::Broken, Entry::View));
                }
            }
            // What is refused has left its problems.
            Kind::Insert { table, columns, query } => drop(self.insert(&table, &columns, &query, span)),
            Kind::Query(query) => drop(self.select_statement(&query, is_last, span)),
        }
    }

    fn set(&mut self, key: String, value: String, span: Span) {
        if key == ALLOW_LATENESS {
            let wrong = match value.parse::<Period>() {
                Ok(period) if period.us >= 0 => {
                    (self.lateness, self.lateness_span) = (period, span);
                    return;
                }
                Ok(_) => format!("'{key}' cannot be negative"),
                Err(reason) => format!("cannot read '{key}': {reason}"),
            };
            self.problem("invalid_option", wrong, "write '5s'", span);
            return;
        }
        let hint = match key.as_str() {
            "execution.runtime-mode" => Some("whether a run is bounded follows from its sources; remove the setting"),
            "parallelism.default" | "table.exec.resource.default-parallelism" => Some("write SET 'parallelism' = '2'"),
            "execution.checkpointing.interval" => Some("write SET 'checkpoint.interval' = '10s'"),
            "table.exec.source.idle-timeout" => Some("write 'scan.watermark.idle-timeout' in the table's WITH (...)"),
            "table.local-time-zone" => Some("the session's time zone is UTC; remove the setting"),
            other if other.starts_with("table.exec.mini-batch") || other.starts_with("table.optimizer") => {
                Some("updating results always leave at the end of an epoch; remove the setting")
            }
            _ => None,
        };
        if let Some(hint) = hint {
            self.problem("unknown_option", format!("there is no setting '{key}'"), hint, span);
            return;
        }
        self.setting_spans.insert(key.clone(), span);
        self.settings.insert(key, Value::String(value));
    }

    /// Whether the name can be given; reports when it is taken.
    fn is_new(&mut self, name: &Ident, if_not_exists: bool) -> bool {
        if self.entries.contains_key(&name.value) {
            if !if_not_exists {
                let message = format!("there is already a table or view {}", name.value);
                self.problem("duplicate_name", message, "choose another name, or write IF NOT EXISTS", name.span);
            }
            return false;
        }
        let length = name.value.chars().count();
        if length == 0
            || length > 128
            || name.value.chars().any(|c| {
                c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
            })
        {
            let message = "a name has 1 to 128 characters, none of them a control character";
            self.problem("invalid_name", message, "choose another name", name.span);
            self.entries.insert(name.value.clone(), Entry::Broken);
            return false;
        }
        true
    }

    /// The relation of a view with the column names that follow its name.
    fn renamed(&mut self, mut relation: Relation, names: &[Ident], at: &Ident) -> Planned<Relation> {
        if names.is_empty() {
            return Ok(relation);
        }
        if names.len() != relation.outputs.len() {
            let message =
                format!("{} has {} columns, and {} names for them", at.value, relation.outputs.len(), names.len());
            return Err(self.problem("wrong_columns", message, "name every column once", at.span));
        }
        for (position, name) in names.iter().enumerate() {
            if names[..position].iter().any(|other| other.value == name.value) {
                return Err(self.problem(
                    "duplicate_column",
                    format!("the column {} is named twice", name.value),
                    "rename one",
                    name.span,
                ));
            }
            relation.outputs[position].name = name.value.clone();
        }
        Ok(relation)
    }

    /// A name in FROM, or after INSERT INTO.
    pub fn lookup(&mut self, name: &ObjectName) -> Planned<String> {
        let span = name.span();
        let parts: Vec<&str> =
            name.0.iter().filter_map(|part| part.as_ident()).map(|part| part.value.as_str()).collect();
        if let [schema, table] = parts[..]
            && schema.eq_ignore_ascii_case(SYSTEM)
        {
            let message = format!("there is no system table {table}");
            return Err(self.problem("unknown_table", message, graph::suggestion(table, SYSTEM_TABLES), span));
        }
        let [part] = parts[..] else {
            let hint = format!("write {}", parts.last().unwrap_or(&"the table's name alone"));
            let message = format!("{name} names a catalogue or a database, of which there is none");
            return Err(self.problem("unsupported", message, hint, span));
        };
        let names: Vec<&str> = self.entries.keys().chain(&self.unnamed).map(String::as_str).collect();
        match find(part, names.iter().copied()) {
            Ok(at) => Ok(names[at].to_string()),
            Err(NotFound::Ambiguous(hint)) => {
                Err(self.problem("unknown_table", format!("the name {part} is ambiguous"), hint, span))
            }
            Err(NotFound::Unknown(hint)) => {
                let hint = match SYSTEM_TABLES.contains(&part) {
                    true => format!("write {SYSTEM}.{part}"),
                    false if names.is_empty() => "declare it with CREATE TABLE before its use".to_string(),
                    false => hint,
                };
                Err(self.problem("unknown_table", format!("there is no table or view {part}"), hint, span))
            }
        }
    }

    /// `highwater.late_rows` and `highwater.dead_letters`, which read what the other statements leave.
    pub fn system_table(&mut self, name: &ObjectName) -> Option<Planned<Relation>> {
        let parts: Vec<String> =
            name.0.iter().filter_map(|part| part.as_ident()).map(|part| part.value.to_lowercase()).collect();
        let [schema, table] = &parts[..] else { return None };
        if schema != SYSTEM || !SYSTEM_TABLES.contains(&table.as_str()) {
            return None;
        }
        let span = name.span();
        let (windows, sources) = self.system.clone().unwrap_or_default();
        let (operator, inputs, schema) = if table == SYSTEM_TABLES[0] {
            (Operator::LateRows(LateRows {}), windows, graph::late_rows_schema())
        } else {
            (Operator::DeadLetters(DeadLetters {}), sources, graph::dead_letters_schema())
        };
        if inputs.is_empty() {
            let (what, hint) = match operator {
                Operator::LateRows(_) => {
                    ("no window operator, so no row can be late", "aggregate over a window in another statement")
                }
                _ => ("no other statement that reads a source", "read a source in another statement"),
            };
            return Some(Err(self.problem("empty_system_table", format!("the script has {what}"), hint, span)));
        }
        let node = self.nodes.add(operator, inputs, schema, NodeSpans::new(span));
        Some(Ok(self.all_columns(node, span)))
    }

    /// Settles which window operators and sources the system tables read.
    fn open_system_tables(&mut self) {
        let roots = self.roots();
        let needed = self.nodes.needed(&roots);
        let of = |wanted: fn(&Operator) -> bool| {
            needed.iter().copied().filter(|at| wanted(self.nodes.operator(*at))).collect::<Vec<_>>()
        };
        let windows = of(|operator| matches!(operator, Operator::WindowAggregate(_) | Operator::WindowAssign(_)));
        let sources = of(|operator| matches!(operator, Operator::Source(_)));
        self.system = Some((windows, sources));
    }

    /// A relation of all columns of a node.
    pub fn all_columns(&self, node: NodeRef, span: Span) -> Relation {
        let outputs = self.nodes.schema(node).columns.iter();
        let outputs = outputs.map(|c| Output {
            name: c.name.clone(),
            expr: column(&c.name, span),
            data_type: c.data_type.clone(),
            nullable: c.nullable,
            span,
        });
        Relation { node, outputs: outputs.collect(), windows: Windows::None, span }
    }

    fn select_statement(&mut self, query: &Query, is_last: bool, span: Span) -> Planned<()> {
        let relation = self.query(query, &Ctes::default())?;
        if !is_last {
            let message = "a SELECT whose rows go nowhere must be the last statement";
            return Err(self.problem(
                "misplaced_select",
                message,
                "write INSERT INTO table SELECT ..., or move it to the end",
                span,
            ));
        }
        let node = self.exact(relation, None)?;
        self.result = Some((node, span));
        Ok(())
    }

    fn insert(&mut self, name: &ObjectName, names: &[Ident], query: &Query, span: Span) -> Planned<()> {
        let target = self.insert_target(name);
        // The query is planned even if the table is wrong: it may have problems of its own.
        let relation = self.query(query, &Ctes::default());
        let (target, relation) = (target?, relation?);
        let relation = self.by_position(relation, &target, names, name.span())?;
        let columns = match self.entries.get(&target) {
            Some(Entry::Table(table)) => table.physical.clone(),
            _ => Vec::new(),
        };
        let node = self.exact(relation, Some(&columns))?;
        self.inserts.entry(target.clone()).or_default().push(node);
        self.insert_spans.entry(target).or_insert(span);
        Ok(())
    }

    fn insert_target(&mut self, name: &ObjectName) -> Planned<String> {
        let target = self.lookup(name)?;
        let wrong = match self.entries.get(&target) {
            Some(Entry::Table(_)) => None,
            Some(Entry::View(_)) => Some(format!("{target} is a view; rows go into tables")),
            _ => return Err(Refused),
        };
        match wrong {
            Some(message) => {
                Err(self.problem("not_a_table", message, "declare the table with CREATE TABLE", name.span()))
            }
            None => {
                self.sink_connector(&target)?;
                Ok(target)
            }
        }
    }

    /// Puts the query's columns into the order of the table's.
    fn by_position(&mut self, relation: Relation, target: &str, names: &[Ident], at: Span) -> Planned<Relation> {
        let Some(Entry::Table(table)) = self.entries.get(target) else { return Err(Refused) };
        let columns = table.physical.clone();
        let computed: Vec<String> = table.computed().map(|name| name.value.clone()).collect();
        let shown = |names: Vec<String>| names.join(", ");
        let mut wanted: Vec<Option<usize>> = vec![None; columns.len()];
        if names.is_empty() {
            if relation.outputs.len() != columns.len() {
                let message =
                    format!("{target} has {} columns, and the query gives {}", columns.len(), relation.outputs.len());
                let table = shown(columns.iter().map(|c| c.name.clone()).collect());
                let query = shown(relation.outputs.iter().map(|o| o.name.clone()).collect());
                return Err(self.problem(
                    "wrong_columns",
                    message,
                    format!("the table has ({table}), the query ({query})"),
                    at,
                ));
            }
            wanted = (0..columns.len()).map(Some).collect();
        } else {
            if names.len() != relation.outputs.len() {
                let message =
                    format!("{} columns are named, and the query gives {}", names.len(), relation.outputs.len());
                return Err(self.problem(
                    "wrong_columns",
                    message,
                    "name as many columns as the query has",
                    names[0].span,
                ));
            }
            for (position, name) in names.iter().enumerate() {
                match find(&name.value, columns.iter().map(|column| column.name.as_str())) {
                    Ok(at) if wanted[at].is_none() => wanted[at] = Some(position),
                    Ok(_) => {
                        return Err(self.problem(
                            "duplicate_column",
                            format!("the column {} is named twice", name.value),
                            "remove one",
                            name.span,
                        ));
                    }
                    Err(_) if computed.iter().any(|known| known.eq_ignore_ascii_case(&name.value)) => {
                        return Err(self.problem(
                            "computed_column",
                            format!(
                                "the column {} of {target} is computed, so nothing can be inserted into it",
                                name.value
                            ),
                            "remove it from the list, and its value from the query",
                            name.span,
                        ));
                    }
                    Err(NotFound::Unknown(hint) | NotFound::Ambiguous(hint)) => {
                        return Err(self.problem(
                            "unknown_column",
                            format!("{target} has no column {}", name.value),
                            hint,
                            name.span,
                        ));
                    }
                }
            }
        }
        let mut outputs = Vec::new();
        for (column, position) in columns.iter().zip(wanted) {
            match position {
                Some(position) => outputs.push(relation.outputs[position].clone()),
                None if column.nullable => outputs.push(types::null(column, at)),
                None => {
                    let message = format!(
                        "the column {} of {target} is NOT NULL, and the statement gives it no value",
                        column.name
                    );
                    return Err(self.problem(
                        "wrong_columns",
                        message,
                        format!("name {} among the columns", column.name),
                        at,
                    ));
                }
            }
        }
        Ok(Relation { outputs, ..relation })
    }

    /// A node whose columns are exactly the relation's, under the names and in the types of `columns` if those are given.
    pub fn exact(&mut self, relation: Relation, columns: Option<&[Column]>) -> Planned<NodeRef> {
        let mut relation = self.assigned(relation)?;
        let mut failed = false;
        for (position, target) in columns.into_iter().flatten().enumerate() {
            let output = &mut relation.outputs[position];
            match types::implicit_cast(output, target) {
                Ok(cast) => *output = cast,
                Err((message, hint)) => {
                    let span = output.span;
                    self.problem("type_mismatch", message, hint, span);
                    failed = true;
                }
            }
        }
        if failed {
            return Err(Refused);
        }
        Ok(self.projected(relation, false).node)
    }

    /// The relation as all columns of a node: a projection, unless the node is that already. With `keep_windows`, the columns of an attached
    /// window stay behind the others, so that a later GROUP BY finds them.
    pub fn projected(&mut self, relation: Relation, keep_windows: bool) -> Relation {
        let schema = self.nodes.schema(relation.node).clone();
        let is_whole = relation.outputs.len() == schema.columns.len()
            && relation.outputs.iter().zip(&schema.columns).all(|(output, column)| {
                output.name == column.name && crate::relation::bare(&output.expr) == Some(&column.name)
            });
        if is_whole {
            return relation;
        }
        let mut outputs = relation.outputs.clone();
        let mut windows = Windows::None;
        if let Windows::Attached(kind) = relation.windows {
            let mut attached = true;
            for name in crate::relation::WINDOW_COLUMNS {
                match outputs.iter().find(|output| output.name == name) {
                    Some(output) => attached &= crate::relation::bare(&output.expr) == Some(name),
                    None if keep_windows => {
                        let known = schema.column(name).expect("the node of an attached window has its columns");
                        let (data_type, nullable) = (known.data_type.clone(), known.nullable);
                        outputs.push(Output {
                            name: name.into(),
                            expr: column(name, relation.span),
                            data_type,
                            nullable,
                            span: relation.span,
                        });
                    }
                    None => attached = false,
                }
            }
            if attached {
                windows = Windows::Attached(kind);
            }
        }
        let columns: Vec<Column> = outputs.iter().map(Output::column).collect();
        let exprs = outputs
            .iter()
            .map(|output| graph::NamedExpr { name: output.name.clone(), expr: output.expr.to_string() })
            .collect();
        let mut spans = NodeSpans::new(relation.span);
        for (position, output) in outputs.iter().enumerate() {
            spans = spans.part(format!("/columns/{position}"), output.span);
        }
        let node = self.nodes.add(
            Operator::Project(Project { columns: exprs }),
            vec![relation.node],
            Schema::new(columns),
            spans,
        );
        let outputs = relation.outputs.iter().map(|o| Output { expr: column(&o.name, o.span), ..o.clone() }).collect();
        Relation { node, outputs, windows, span: relation.span }
    }

    /// The type of a resolved expression over a node's columns.
    pub fn typed(&mut self, expr: &Expr, schema: &Schema, fallback: Span) -> Planned<(DataType, bool)> {
        match expr::compile_all(expr, schema, &self.env) {
            Ok(compiled) => Ok((compiled.data_type().clone(), compiled.nullable())),
            Err(errors) => {
                for error in errors {
                    let _ = self.expr_problem(error, expr, fallback);
                }
                Err(Refused)
            }
        }
    }

    pub fn expr_problem(&mut self, error: expr::ExprError, expr: &Expr, fallback: Span) -> Refused {
        let own = if expr.span() == Span::empty() { fallback } else { expr.span() };
        let at = match error.span {
            Some((line, column, end_line, end_column)) if line > 0 => {
                Place::Span { line, column, end_line, end_column }
            }
            _ => place(own),
        };
        let problem = Problem::new(error.code, error.message).at(at);
        self.problems.push(match error.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
        Refused
    }

    /// Whether an expression is a predicate.
    pub fn is_predicate(&mut self, expr: &Expr, schema: &Schema, clause: &str, fallback: Span) -> Planned<()> {
        let span = if expr.span() == Span::empty() { fallback } else { expr.span() };
        if matches!(without_parentheses(expr), Expr::Value(value) if value.value == Literal::Null) {
            let with = |value: &str| match clause.contains("...") {
                true => clause.replace("...", value),
                false => format!("{clause} {value}"),
            };
            let hint = format!("remove it, or write {}", with("FALSE"));
            return Err(self.problem("untyped_null", format!("{} takes no row", with("NULL")), hint, span));
        }
        let (data_type, _) = self.typed(expr, schema, fallback)?;
        if data_type == DataType::Boolean {
            return Ok(());
        }
        let message = format!("{clause} needs a BOOLEAN, and this is {data_type}");
        Err(self.problem("type_mismatch", message, "compare it with a value", span))
    }

    /// The nodes that end the graph so far: what goes into sinks.
    fn roots(&self) -> Vec<NodeRef> {
        self.inserts.values().flatten().copied().chain(self.result.map(|(node, _)| node)).collect()
    }

    fn finish(mut self, explain: bool) -> Result<Script, Vec<Problem>> {
        let mut sinks = Vec::new();
        for (table, inputs) in std::mem::take(&mut self.inserts) {
            let span = self.insert_spans.get(&table).copied().unwrap_or(Span::empty());
            let Ok(sink) = self.sink(&table) else { continue };
            let mut inputs = inputs;
            if inputs.len() > 1 {
                let mut schema = self.nodes.schema(inputs[0]).clone();
                for (at, column) in schema.columns.iter_mut().enumerate() {
                    column.nullable = inputs.iter().any(|input| self.nodes.schema(*input).columns[at].nullable);
                }
                inputs = vec![self.nodes.add(Operator::Union(Union {}), inputs, schema, NodeSpans::new(span))];
            }
            let spans = self.sink_spans(&table, span);
            sinks.push(self.nodes.add_named(
                format!("sink_{table}"),
                Operator::Sink(sink),
                inputs,
                Schema::default(),
                spans,
            ));
        }
        if let Some((node, span)) = self.result {
            let connector = SinkConnector::Print(PrintOptions::default());
            let table = unique(RESULT, |name| self.entries.contains_key(name));
            let id = format!("sink_{table}");
            let sink = Sink {
                table,
                connector,
                columns: Vec::new(),
                primary_key: Vec::new(),
                partition_by: Vec::new(),
                metadata: Default::default(),
            };
            sinks.push(self.nodes.add_named(
                id,
                Operator::Sink(sink),
                vec![node],
                Schema::default(),
                NodeSpans::new(span),
            ));
        }
        self.check_overrides();
        let settings = self.checked_settings();
        if sinks.is_empty() && self.problems.is_empty() {
            let problem = Problem::new("nothing_to_run", "the script has neither INSERT INTO nor SELECT");
            self.problems.push(problem.hint("write INSERT INTO table SELECT ..., or end the script with a SELECT"));
        }
        let (graph, spans) = self.nodes.graph(&sinks);
        if graph.nodes.len() > NODES_MAX || self.nodes.len() > NODES_MAX {
            let message = format!("the script needs more than {NODES_MAX} operators");
            self.problems.push(Problem::new("query_too_complex", message).hint("split it into several scripts"));
        } else if !sinks.is_empty() {
            let found = graph.check();
            let found = if found.is_empty() { self.analyzed(&graph, &settings) } else { found };
            // That nothing takes them follows from the statement that was to, and was refused.
            let follows = self.reads_dead_letters && !self.problems.is_empty();
            let found = found.into_iter().filter(|problem| !(follows && problem.code == "no_dead_letters"));
            self.problems.extend(found.map(|problem| on_script(problem, &graph, &spans)));
        }
        if !self.problems.is_empty() {
            return Err(sorted(self.problems));
        }
        let spans = graph.nodes.iter().zip(&spans).map(|(node, spans)| (node.id.clone(), place(spans.whole))).collect();
        Ok(Script { settings: self.settings, graph, spans, explain })
    }

    fn analyzed(&self, graph: &Graph, settings: &Settings) -> Vec<Problem> {
        match expr::analyze(graph, settings) {
            Ok(_analysis) => {
                #[cfg(test)]
                self.nodes.compare(&_analysis);
                Vec::new()
            }
            Err(problems) => problems,
        }
    }

    fn checked_settings(&mut self) -> Settings {
        match Settings::from_options(self.settings.clone()) {
            Ok(settings) => settings,
            Err(found) => {
                for problem in found {
                    let key = match &problem.place {
                        Place::Pointer { pointer } => {
                            pointer.trim_start_matches('/').replace("~1", "/").replace("~0", "~")
                        }
                        _ => String::new(),
                    };
                    let span = self.setting_spans.get(&key).copied().unwrap_or(Span::empty());
                    self.problems.push(problem.at(place(span)));
                }
                Settings::default()
            }
        }
    }

    fn check_overrides(&mut self) {
        for (table, option, _) in &self.options.overrides {
            if !self.entries.contains_key(table) {
                let names = self
                    .entries
                    .iter()
                    .filter(|(_, entry)| !matches!(entry, Entry::View(_)))
                    .map(|(name, _)| name.as_str());
                let names: Vec<&str> = names.collect();
                let message = format!("cannot set tables.{table}.{option}: there is no table {table}");
                self.problems
                    .push(Problem::new("unknown_table", message).hint(graph::suggestion(table, names.iter().copied())));
            }
        }
    }
}

/// A problem of the graph at its place in the script; operators are called by their lines, since the script does not know their ids.
fn on_script(mut problem: Problem, graph: &Graph, spans: &[NodeSpans]) -> Problem {
    for (node, spans) in graph.nodes.iter().zip(spans).filter(|(_, spans)| spans.whole != Span::empty()) {
        let id = format!("{:?}", node.id);
        if !matches!(node.operator, Operator::Source(_) | Operator::Sink(_)) && problem.message.contains(&id) {
            let line = spans.whole.start.line;
            let message =
                problem.message.replace(&format!("result of {id}"), &format!("result of the query in line {line}"));
            problem.message = message.replace(&id, &format!("(line {line})"));
        }
    }
    // What to write is SQL here, not parts of a graph.
    let in_sql = problem.hint.take().map(|hint| match problem.code.as_str() {
        "no_dead_letters" => format!(
            "write INSERT INTO a table SELECT ... FROM {SYSTEM}.{}, or set the option to 'fail' or 'drop'",
            SYSTEM_TABLES[1]
        ),
        _ => hint.replace("set allowed_lateness to 0", &format!("write SET '{ALLOW_LATENESS}' = '0s' before it")),
    });
    problem.hint = in_sql;
    let Place::Pointer { pointer } = &problem.place else { return problem };
    let Some((index, rest)) = pointer.strip_prefix("/nodes/").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
    else {
        return problem;
    };
    let Some(spans) = index.parse::<usize>().ok().and_then(|index| spans.get(index)) else { return problem };
    let span = spans.find(&format!("/{rest}"));
    problem.at(place(span))
}

/// In the order of the text, each once.
fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| problem.place.clone());
    problems.dedup();
    problems
}

impl Scope {
    pub fn names(&self, clause: &'static str, aggregates: bool) -> crate::resolve::Names<'_> {
        crate::resolve::Names { relation: &self.relation, qualifier: self.qualifier.as_deref(), clause, aggregates }
    }
}

/// What one `CREATE TABLE` statement says.
pub fn describe(text: &str) -> Result<TableDescription, Vec<Problem>> {
    let (statements, problems) = script::read(text);
    let options = Options::default();
    let mut planner = Planner::new(&options, problems);
    let only = match <[Statement; 1]>::try_from(statements) {
        Ok([Statement { kind: Kind::CreateTable(definition), .. }]) => Some(definition),
        Ok([Statement { kind: Kind::Broken { .. }, .. }]) => None,
        Ok([other]) => {
            planner.problem(
                "sql_syntax",
                "this is no CREATE TABLE statement",
                "write CREATE TABLE name (...) WITH (...)",
                other.span,
            );
            None
        }
        Err(several) => {
            if let Some(second) = several.get(1) {
                planner.problem(
                    "sql_syntax",
                    "there is more than one statement",
                    "create one table at a time",
                    second.span,
                );
            }
            None
        }
    };
    let described = only.filter(|definition| planner.is_new(&definition.name, false)).and_then(|definition| {
        let table = planner.table(*definition).ok()?;
        let option = |name: &str| {
            table.definition.options.iter().find(|option| option.key == name).map(|option| option.value.clone())
        };
        Some(TableDescription {
            name: table.definition.name.value.clone(),
            connector: option("connector").unwrap_or_default().trim().to_lowercase(),
            columns: graph::Schema { columns: table.physical.clone() },
            connections: ["connection", "avro-confluent.connection", "value.avro-confluent.connection"]
                .into_iter()
                .filter_map(option)
                .collect(),
            secret_option: table
                .definition
                .options
                .iter()
                .map(|option| option.key.clone())
                .find(|name| is_secret_option(name)),
        })
    });
    match described {
        Some(described) if planner.problems.is_empty() => Ok(described),
        _ => Err(planner.problems),
    }
}
