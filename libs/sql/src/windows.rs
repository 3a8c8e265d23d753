//! Window functions: TUMBLE, HOP, CUMULATE and SESSION in FROM, and their older forms in GROUP BY.

use datafusion_sql::sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Column, Operator, Period, Window, WindowAssign, suggestion};

use crate::dialect::TABLE_ARGUMENT;
use crate::nodes::NodeSpans;
use crate::planner::Planner;
use crate::query::{Ctes, Planned, Refused};
use crate::relation::{
    Output, Pending, Relation, Scope, WINDOW_COLUMNS, WindowKind, WindowSpans, Windows, bare, column, marked,
    set_window_time, unique, window_columns, window_mark, window_time,
};
use crate::resolve::{function_name, replace};

const FUNCTIONS: [&str; 4] = ["TUMBLE", "HOP", "CUMULATE", "SESSION"];

/// The arguments of a function by position, with the names that they have.
fn roles(function: &str) -> &'static [&'static str] {
    match function {
        "TUMBLE" => &["DATA", "TIMECOL", "SIZE", "OFFSET"],
        "HOP" => &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
        "CUMULATE" => &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
        _ => &["DATA", "TIMECOL", "GAP"],
    }
}

fn usage(function: &str) -> &'static str {
    match function {
        "TUMBLE" => "write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTE [, offset])",
        "HOP" => {
            "write HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '10' MINUTE [, offset]), the slide before the size"
        }
        "CUMULATE" => {
            "write CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '2' MINUTE, INTERVAL '10' MINUTE [, offset]), the step before the size"
        }
        _ => "write SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
    }
}

fn window(function: &str, time: String, periods: &[Option<Period>]) -> Option<Window> {
    let at = |index: usize| periods.get(index).copied().flatten();
    Some(match function {
        "TUMBLE" => Window::Tumble { time, size: at(0)?, offset: at(1).unwrap_or_default() },
        "HOP" => Window::Hop { time, slide: at(0)?, size: at(1)?, offset: at(2).unwrap_or_default() },
        "CUMULATE" => Window::Cumulate { time, step: at(0)?, size: at(1)?, offset: at(2).unwrap_or_default() },
        _ => Window::Session { time, gap: at(0)? },
    })
}

impl Planner<'_> {
    /// A table function in FROM.
    pub fn window_function(&mut self, name: &str, args: &[FunctionArg], span: Span, ctes: &Ctes) -> Planned<Relation> {
        let function = name.to_uppercase();
        if function == "UNNEST" {
            return Err(self.unsupported("UNNEST", "compute with the array in the SELECT list", span));
        }
        if !FUNCTIONS.contains(&function.as_str()) {
            return Err(self.problem(
                "unknown_function",
                format!("there is no table function {name}"),
                suggestion(&function, FUNCTIONS),
                span,
            ));
        }
        let roles = roles(&function);
        let mut found: Vec<Option<(Expr, Span)>> = vec![None; roles.len()];
        for (position, arg) in args.iter().enumerate() {
            let (at, expr) = match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (position, expr),
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                    match roles.iter().position(|role| name.value.eq_ignore_ascii_case(role)) {
                        Some(at) => (at, expr),
                        None => {
                            let message = format!("{function} has no argument {}", name.value);
                            return Err(self.problem(
                                "invalid_window",
                                message,
                                suggestion(&name.value, roles.iter().copied()),
                                name.span,
                            ));
                        }
                    }
                }
                other => {
                    return Err(self.problem(
                        "invalid_window",
                        format!("{function} cannot take {other}"),
                        usage(&function),
                        span,
                    ));
                }
            };
            if at >= roles.len() || found[at].is_some() {
                let message = format!("{function} has {} arguments at most, each once", roles.len());
                return Err(self.problem("invalid_window", message, usage(&function), span));
            }
            let own = expr.span();
            found[at] = Some((expr.clone(), if own == Span::empty() { span } else { own }));
        }
        let optional = |role: &str| role == "OFFSET";
        if let Some(missing) = roles.iter().zip(&found).find(|(role, arg)| arg.is_none() && !optional(role)) {
            let message = format!("{function} lacks its {}", missing.0.to_lowercase());
            return Err(self.problem("invalid_window", message, usage(&function), span));
        }
        let mut found = found.into_iter();
        let mut next = || found.next().flatten();
        let (data, descriptor) = (next().expect("it is not optional"), next().expect("it is not optional"));
        let data = self.window_input(&function, data, ctes);
        let mut spans = WindowSpans { whole: span, parts: Vec::new() };
        let mut periods = Vec::new();
        let mut failed = false;
        for role in &roles[2..] {
            let part: &'static str = match *role {
                "SIZE" => "size",
                "SLIDE" => "slide",
                "STEP" => "step",
                "GAP" => "gap",
                _ => "offset",
            };
            periods.push(next().and_then(|(expr, at)| {
                spans.parts.push((part, at));
                match crate::period::read(&expr, &format!("the {part} of {function}"), at) {
                    Ok(period) => Some(period),
                    Err(problem) => {
                        self.problems.push(problem);
                        failed = true;
                        None
                    }
                }
            }));
        }
        let (relation, keys) = data?;
        let (mut relation, time) = self.time_column(relation, &descriptor, &function)?;
        spans.parts.push(("time", descriptor.1));
        if failed {
            return Err(Refused);
        }
        if let Some(taken) = relation.outputs.iter().find(|output| WINDOW_COLUMNS.contains(&output.name.as_str())) {
            let message = format!("the rows have a column {} already, which {function} adds", taken.name);
            return Err(self.problem(
                "duplicate_column",
                message,
                "rename it in the inner query: window_start AS start_of_inner",
                span,
            ));
        }
        let scope = Scope { relation: relation.clone(), qualifier: None };
        let mut partition_by = Vec::new();
        for key in &keys {
            let resolved = scope.names("PARTITION BY", false).resolve(key, &mut self.problems).ok_or(Refused)?;
            partition_by.push(resolved);
        }
        let time_output = relation.outputs[time].clone();
        let time_name = bare(&time_output.expr).expect("the time column was made one of the node").to_string();
        let window = window(&function, time_name, &periods).expect("all arguments that are not optional are there");
        let time_type = time_output.data_type;
        for (index, Column { name, data_type, .. }) in window_columns(&time_type).into_iter().enumerate() {
            relation.outputs.push(Output { name, expr: window_mark(index, span), data_type, nullable: false, span });
        }
        relation.windows = Windows::Pending(Box::new(Pending { window, partition_by, time_type, spans }));
        relation.span = span;
        Ok(relation)
    }

    /// The rows that a window function takes, and the keys after PARTITION BY.
    fn window_input(
        &mut self,
        function: &str,
        (data, span): (Expr, Span),
        ctes: &Ctes,
    ) -> Planned<(Relation, Vec<Expr>)> {
        let (relation, keys) = match &data {
            Expr::Function(call) if function_name(call) == TABLE_ARGUMENT => {
                let mut args = arguments(call);
                let name = match args.remove(0) {
                    Expr::CompoundIdentifier(parts) => parts.into(),
                    _ => {
                        return Err(self.problem(
                            "invalid_window",
                            format!("{function} needs a table"),
                            usage(function),
                            span,
                        ));
                    }
                };
                if !args.is_empty() && function != "SESSION" {
                    let message = format!("{function} takes no PARTITION BY");
                    return Err(self.problem("invalid_window", message, "group by the keys instead", span));
                }
                (self.named(&name, ctes)?, args)
            }
            Expr::Subquery(query) => (self.query(query, ctes)?, Vec::new()),
            Expr::Identifier(name) => {
                let hint = format!("write TABLE {}", name.value);
                return Err(self.problem(
                    "invalid_window",
                    format!("{function} needs TABLE before the name of its table"),
                    hint,
                    span,
                ));
            }
            _ => {
                return Err(self.problem("invalid_window", format!("{function} needs a table"), usage(function), span));
            }
        };
        Ok((self.assigned(relation)?, keys))
    }

    /// The output that DESCRIPTOR names, as a column of the relation's node.
    fn time_column(
        &mut self,
        relation: Relation,
        (descriptor, span): &(Expr, Span),
        function: &str,
    ) -> Planned<(Relation, usize)> {
        let name = match descriptor {
            Expr::Function(call) if function_name(call) == "DESCRIPTOR" => match &arguments(call)[..] {
                [Expr::Identifier(name)] => Some(name.clone()),
                _ => None,
            },
            _ => None,
        };
        let Some(name) = name else {
            let message = format!("{function} needs the time column as DESCRIPTOR(column)");
            return Err(self.problem("invalid_window", message, usage(function), *span));
        };
        let scope = Scope { relation, qualifier: None };
        let at = match scope.names("DESCRIPTOR", false).lookup(std::slice::from_ref(&name)) {
            Ok((at, _)) => at,
            Err(problem) => {
                self.problems.push(problem);
                return Err(Refused);
            }
        };
        let relation = match bare(&scope.relation.outputs[at].expr) {
            Some(_) => scope.relation,
            None => self.projected(scope.relation, false),
        };
        Ok((relation, at))
    }

    /// The relation with its window columns as columns of the node.
    pub fn assigned(&mut self, relation: Relation) -> Planned<Relation> {
        self.assigned_with(relation, &mut [])
    }

    /// Likewise; `exprs`, which stand over the relation's node, then stand over the new one.
    pub fn assigned_with(&mut self, mut relation: Relation, exprs: &mut [&mut Expr]) -> Planned<Relation> {
        let Windows::Pending(pending) = relation.windows else { return Ok(relation) };
        let Pending { mut window, spans, time_type, .. } = *pending;
        let Some(kind) = WindowKind::of(&window).filter(|kind| *kind != WindowKind::Session) else {
            let hint = "GROUP BY window_start, window_end and the keys of PARTITION BY directly over SESSION; filter in a view below it";
            return Err(self.problem(
                "unsupported",
                "the windows of SESSION are known only to an aggregate",
                hint,
                spans.whole,
            ));
        };
        // Columns of earlier windows under these names make way.
        let schema = self.nodes.schema(relation.node).clone();
        if schema.names().any(|name| WINDOW_COLUMNS.contains(&name)) {
            let renamed: Vec<(String, String)> = schema
                .names()
                .map(|name| {
                    let taken = |new: &str| {
                        WINDOW_COLUMNS.contains(&new) || (new != name && schema.names().any(|other| other == new))
                    };
                    (name.to_string(), unique(name, taken))
                })
                .collect();
            let columns = schema.columns.iter().zip(&renamed);
            let outputs = columns.map(|(c, (name, new))| Output {
                name: new.clone(),
                expr: column(name, relation.span),
                data_type: c.data_type.clone(),
                nullable: c.nullable,
                span: relation.span,
            });
            let outputs = Relation {
                node: relation.node,
                outputs: outputs.collect(),
                windows: Windows::None,
                span: relation.span,
            };
            relation.node = self.projected(outputs, false).node;
            let rename = |expr: &mut Expr| {
                replace(expr, &mut |part| {
                    let old = bare(part)?;
                    let (_, new) = renamed.iter().find(|(name, _)| name == old)?;
                    Some(column(new, part.span()))
                });
            };
            relation.outputs.iter_mut().for_each(|output| rename(&mut output.expr));
            exprs.iter_mut().for_each(|expr| rename(expr));
            let time = window_time(&window).to_string();
            let new = renamed.into_iter().find(|(name, _)| *name == time).map_or(time, |(_, new)| new);
            set_window_time(&mut window, new);
        }
        let mut schema = self.nodes.schema(relation.node).clone();
        schema.columns.extend(window_columns(&time_type));
        let node_spans = window_spans(&spans);
        relation.node =
            self.nodes.add(Operator::WindowAssign(WindowAssign { window }), vec![relation.node], schema, node_spans);
        relation.outputs.iter_mut().for_each(|output| unmark(&mut output.expr));
        exprs.iter_mut().for_each(|expr| unmark(expr));
        relation.windows = Windows::Attached(kind);
        Ok(relation)
    }

    /// `TUMBLE(ts, size)`, `HOP(ts, slide, size)` or `SESSION(ts, gap)` in GROUP BY; `None` if the expression is something else.
    pub fn group_window(&mut self, expr: &Expr, fallback: Span) -> Option<Planned<(Window, WindowSpans)>> {
        let Expr::Function(call) = expr else { return None };
        let function = function_name(call);
        if !FUNCTIONS.contains(&function.as_str()) {
            return None;
        }
        let span = if expr.span() == Span::empty() { fallback } else { expr.span() };
        Some(self.read_group_window(&function, call, span))
    }

    fn read_group_window(&mut self, function: &str, call: &Function, span: Span) -> Planned<(Window, WindowSpans)> {
        let usage = match function {
            "TUMBLE" => "write GROUP BY TUMBLE(ts, INTERVAL '10' MINUTE)",
            "HOP" => "write GROUP BY HOP(ts, INTERVAL '5' MINUTE, INTERVAL '10' MINUTE), the slide before the size",
            "SESSION" => "write GROUP BY SESSION(ts, INTERVAL '5' MINUTE)",
            _ => "write FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), step, size))",
        };
        let args = arguments(call);
        let wanted = if function == "HOP" { 3 } else { 2 };
        let time = args.first().and_then(bare).map(str::to_string);
        let (Some(time), true) = (time, args.len() == wanted && function != "CUMULATE") else {
            let message = format!("cannot read {function} in GROUP BY: it takes a time column, then intervals");
            return Err(self.problem("invalid_window", message, usage, span));
        };
        let parts: &[&'static str] = match function {
            "TUMBLE" => &["size"],
            "HOP" => &["slide", "size"],
            _ => &["gap"],
        };
        let mut spans = WindowSpans { whole: span, parts: vec![("time", args[0].span())] };
        let mut periods = Vec::new();
        for (part, arg) in parts.iter().zip(&args[1..]) {
            spans.parts.push((part, arg.span()));
            match crate::period::read(arg, &format!("the {part} of {function}"), span) {
                Ok(period) => periods.push(Some(period)),
                Err(problem) => {
                    self.problems.push(problem);
                    return Err(Refused);
                }
            }
        }
        Ok((window(function, time, &periods).expect("as many periods as it takes were read"), spans))
    }
}

/// Whether a call is one of `TUMBLE(ts, size)` and its like.
pub fn is_group_window(call: &Function) -> bool {
    FUNCTIONS.contains(&function_name(call).as_str())
}

/// `TUMBLE_START(ts, size)` and its like: the function whose window it belongs to, and which column of it (start, end, time).
pub fn auxiliary(expr: &Expr) -> Option<(String, usize, Function)> {
    let Expr::Function(call) = expr else { return None };
    let name = function_name(call);
    let (function, part) = name.split_once('_')?;
    let index = ["START", "END", "ROWTIME"].iter().position(|known| *known == part)?;
    ["TUMBLE", "HOP", "SESSION"].contains(&function).then(|| (function.to_string(), index, call.clone()))
}

impl Planner<'_> {
    /// Whether `TUMBLE_START(...)` speaks of this window; its column if so.
    pub fn auxiliary_column(&mut self, expr: &Expr, window: Option<&Window>, fallback: Span) -> Option<Planned<usize>> {
        let (function, index, call) = auxiliary(expr)?;
        let span = if expr.span() == Span::empty() { fallback } else { expr.span() };
        let read = self.read_group_window(&function, &call, span);
        Some(match read {
            Err(refused) => Err(refused),
            Ok((of, _)) if Some(&of) == window => Ok(index),
            Ok(_) => {
                let message = format!("{} speaks of a window that GROUP BY does not have", function_name(&call));
                Err(self.problem(
                    "invalid_window",
                    message,
                    format!("write the same {function}(...) in GROUP BY"),
                    span,
                ))
            }
        })
    }
}

/// Marks of a pending window to the columns of a node.
pub fn unmark(expr: &mut Expr) {
    replace(expr, &mut |part| marked(part).map(|index| column(WINDOW_COLUMNS[index], part.span())));
}

/// The spans of a window's parts below the node that has it.
pub fn window_spans(spans: &WindowSpans) -> NodeSpans {
    let parts = spans.parts.iter().map(|(part, span)| (format!("/window/{part}"), *span));
    NodeSpans { whole: spans.whole, parts: parts.chain([("/window".to_string(), spans.whole)]).collect() }
}

fn arguments(call: &Function) -> Vec<Expr> {
    match &call.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
