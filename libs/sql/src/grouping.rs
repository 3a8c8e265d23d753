//! GROUP BY and aggregates: to a window aggregate where the keys name a window, else to an updating aggregate.

use datafusion_sql::sqlparser::ast::{Expr, Spanned};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Aggregate, AggregateCall, Column, DataType, NamedExpr, Operator, Schema, Window, WindowAggregate};

use crate::aggregates::{self, Call};
use crate::nodes::NodeSpans;
use crate::order::SortItem;
use crate::planner::Planner;
use crate::query::{Planned, Refused, Resolved};
use crate::relation::{
    Output, Pending, Relation, WINDOW_COLUMNS, WindowKind, WindowSpans, Windows, bare, column, marked, unique,
    window_columns, window_time,
};
use crate::resolve::{all_of, conjuncts, each_function, each_name, replace, uses_marks};
use crate::windows::window_spans;

/// Which windows an aggregate goes by.
enum By {
    /// A window function in FROM, or one of GROUP BY.
    Window { window: Window, spans: WindowSpans, kind: WindowKind },
    /// Windows that the rows have already.
    Attached(WindowKind),
    /// All rows so far.
    Nothing,
}

/// An aggregate's node, and what the query's expressions are over its output.
struct Grouped {
    relation: Relation,
    keys: Vec<(Expr, String)>,
    calls: Vec<(Call, String)>,
    window: Option<Window>,
    windowed: bool,
    attached_input: bool,
}

pub fn is_session(relation: &Relation) -> bool {
    matches!(&relation.windows, Windows::Pending(pending) if matches!(pending.window, Window::Session { .. }))
}

impl Planner<'_> {
    /// A SELECT with GROUP BY or aggregates.
    pub fn grouped(&mut self, mut relation: Relation, mut resolved: Resolved) -> Planned<(Relation, Vec<SortItem>)> {
        let (mut calls, legacy) = (self.calls(&resolved)?, self.take_group_window(&mut resolved)?);
        // Window columns inside keys and arguments are computed per row.
        let in_arguments = calls.iter().any(|call| call.argument.iter().chain(&call.filter).any(uses_marks));
        let in_keys = resolved.keys.iter().any(|(expr, _)| marked(expr).is_none() && uses_marks(expr));
        let named = window_parts(&resolved, &relation);
        let pending_kind = match &relation.windows {
            Windows::Pending(pending) => WindowKind::of(&pending.window),
            _ => None,
        };
        let by_pending =
            pending_kind.is_some_and(|kind| kind.named_by(&named)) && !in_arguments && !in_keys && legacy.is_none();
        let mut after = Vec::new();
        let mut below = Vec::new();
        let mut split = by_pending;
        if by_pending {
            let keys: Vec<Expr> =
                resolved.keys.iter().filter(|(expr, _)| marked(expr).is_none()).map(|(expr, _)| expr.clone()).collect();
            for part in resolved.filter.clone().map(conjuncts).unwrap_or_default() {
                let of_group = stands_on_keys(&part, &keys);
                match (uses_marks(&part), of_group) {
                    (true, true) => after.push(part),
                    // A filter above SESSION does not change its sessions, unless it takes or leaves whole keys.
                    (false, true) if is_session(&relation) => after.push(part),
                    (false, _) if !is_session(&relation) => below.push(part),
                    _ => split = false,
                }
            }
        }
        if !split && matches!(relation.windows, Windows::Pending(_)) {
            (after, below) = (Vec::new(), resolved.filter.clone().map(conjuncts).unwrap_or_default());
            // The calls' expressions move with the others; they are read again from them.
            relation = self.assigned_with(
                relation,
                &mut resolved.exprs().into_iter().chain(below.iter_mut()).collect::<Vec<_>>(),
            )?;
            calls = self.calls(&resolved)?;
        } else if !split {
            below = resolved.filter.clone().into_iter().collect();
        }
        if let Some(filter) = all_of(below) {
            relation = self.filtered(relation, filter, "WHERE")?;
        }
        let by = self.by(&mut relation, &mut resolved, legacy)?;
        if matches!(by, By::Nothing) && resolved.keys.is_empty() && calls.is_empty() {
            let hint = "add COUNT(*), or remove GROUP BY and HAVING";
            return Err(self.problem(
                "invalid_aggregate",
                "the query groups by nothing and aggregates nothing",
                hint,
                resolved.span,
            ));
        }
        let keys = std::mem::take(&mut resolved.keys);
        let grouped = self.aggregate(relation, keys, calls, by, resolved.span)?;
        self.over_groups(grouped, resolved, after)
    }

    /// Each row of a relation once.
    pub fn distinct(&mut self, relation: Relation, span: Span) -> Planned<Relation> {
        let mut keys: Vec<(Expr, Span)> = Vec::new();
        for output in &relation.outputs {
            if !keys.iter().any(|(known, _)| *known == output.expr) {
                keys.push((output.expr.clone(), output.span));
            }
        }
        let items = relation.outputs.iter().map(|output| crate::query::Item {
            name: output.name.clone(),
            expr: output.expr.clone(),
            span: output.span,
        });
        let mut resolved =
            Resolved { items: items.collect(), filter: None, keys, having: None, order: Vec::new(), span };
        let named = window_parts(&resolved, &relation);
        let mut relation = relation;
        let by_pending = matches!(&relation.windows, Windows::Pending(pending) if WindowKind::of(&pending.window).is_some_and(|kind| kind.named_by(&named)));
        if !by_pending {
            relation = self.assigned_with(relation, &mut resolved.exprs())?;
        }
        let by = self.by(&mut relation, &mut resolved, None)?;
        let keys = std::mem::take(&mut resolved.keys);
        let grouped = self.aggregate(relation, keys, Vec::new(), by, span)?;
        self.over_groups(grouped, resolved, Vec::new()).map(|(relation, _)| relation)
    }

    /// The aggregates of a query, each once.
    fn calls(&mut self, resolved: &Resolved) -> Planned<Vec<Call>> {
        let mut calls: Vec<Call> = Vec::new();
        let mut failed = Vec::new();
        let items = resolved.items.iter().map(|item| &item.expr);
        for expr in items.chain(&resolved.having).chain(resolved.order.iter().map(|item| &item.expr)) {
            each_function(expr, &mut |call| {
                if let Expr::Function(function) = call
                    && aggregates::is_aggregate(function)
                {
                    match aggregates::read(function) {
                        Ok(call) if calls.iter().any(|known| known.equals(&call)) => {}
                        Ok(call) => calls.push(call),
                        Err(problem) => failed.push(problem),
                    }
                }
            });
        }
        if failed.is_empty() {
            return Ok(calls);
        }
        self.problems.extend(failed);
        Err(Refused)
    }

    /// `TUMBLE(ts, size)` among the keys.
    fn take_group_window(&mut self, resolved: &mut Resolved) -> Planned<Option<(Window, WindowSpans)>> {
        let mut found = None;
        let mut keys = Vec::new();
        for (expr, span) in std::mem::take(&mut resolved.keys) {
            match self.group_window(&expr, span) {
                None => keys.push((expr, span)),
                Some(window) if found.is_none() => found = Some(window?),
                Some(_) => {
                    return Err(self.problem(
                        "invalid_window",
                        "GROUP BY has two windows",
                        "group by one of them",
                        span,
                    ));
                }
            }
        }
        resolved.keys = keys;
        Ok(found)
    }

    /// Decides which windows to go by, and takes their columns out of the keys.
    fn by(
        &mut self,
        relation: &mut Relation,
        resolved: &mut Resolved,
        legacy: Option<(Window, WindowSpans)>,
    ) -> Planned<By> {
        if let Some((window, spans)) = legacy {
            let kind = WindowKind::of(&window).expect("a window of GROUP BY has a kind");
            return Ok(By::Window { window, spans, kind });
        }
        let named = window_parts(resolved, relation);
        match relation.windows.clone() {
            Windows::Pending(pending) => {
                let Pending { window, partition_by, spans, .. } = *pending;
                let kind = WindowKind::of(&window).expect("a pending window has a kind");
                resolved.keys.retain(|(expr, _)| marked(expr).is_none());
                if kind == WindowKind::Session {
                    self.same_keys(&resolved.keys, &partition_by, spans.whole)?;
                }
                Ok(By::Window { window, spans, kind })
            }
            Windows::Attached(kind) if kind.named_by(&named) => {
                resolved.keys.retain(|(expr, _)| !bare(expr).is_some_and(|name| WINDOW_COLUMNS.contains(&name)));
                Ok(By::Attached(kind))
            }
            _ => Ok(By::Nothing),
        }
    }

    /// The sessions of an aggregate are those of its keys.
    fn same_keys(&mut self, keys: &[(Expr, Span)], partition_by: &[Expr], span: Span) -> Planned<()> {
        let same = keys.len() == partition_by.len() && keys.iter().all(|(key, _)| partition_by.contains(key));
        if same {
            return Ok(());
        }
        let shown = |keys: Vec<String>| if keys.is_empty() { "nothing".to_string() } else { keys.join(", ") };
        let grouped = shown(keys.iter().map(|(key, _)| key.to_string()).collect());
        let message = format!(
            "SESSION is partitioned by {}, and the query groups by {grouped}",
            shown(partition_by.iter().map(Expr::to_string).collect())
        );
        let hint = match keys {
            [] => "remove PARTITION BY, or group by its keys".to_string(),
            [_] => format!("write SESSION(TABLE t PARTITION BY {grouped}, ...)"),
            _ => format!("write SESSION(TABLE t PARTITION BY ({grouped}), ...)"),
        };
        Err(self.problem("unsupported", message, hint, span))
    }

    /// The node. Its columns are named after what they are, not as the query calls them: other names in a SELECT list leave the operator, and
    /// its state, what they were.
    fn aggregate(
        &mut self,
        relation: Relation,
        keys: Vec<(Expr, Span)>,
        calls: Vec<Call>,
        by: By,
        span: Span,
    ) -> Planned<Grouped> {
        // In an order of their own, so that another order of the SELECT list or of GROUP BY is the same operator.
        let (mut keys, mut calls) = (keys, calls);
        keys.sort_by_cached_key(|(expr, _)| expr.to_string());
        calls.sort_by_cached_key(|call| (call.default_name(), call.filter.as_ref().map(ToString::to_string)));
        let input = self.nodes.schema(relation.node).clone();
        let windowed = !matches!(by, By::Nothing);
        let mut columns: Vec<Column> = Vec::new();
        let reserved = |name: &str| windowed && WINDOW_COLUMNS.contains(&name);
        let mut spans = NodeSpans::new(span);
        let mut failed = false;
        let mut named_keys = Vec::new();
        for (position, (expr, at)) in keys.iter().enumerate() {
            spans.parts.push((format!("/keys/{position}"), *at));
            let name = bare(expr).map_or_else(|| short(expr), str::to_string);
            let name = unique(&name, |name| reserved(name) || columns.iter().any(|column| column.name == name));
            match self.typed(expr, &input, *at) {
                Ok((data_type, nullable)) => columns.push(Column::new(name.clone(), data_type, nullable)),
                Err(Refused) => failed = true,
            }
            named_keys.push((expr.clone(), name));
        }
        if windowed {
            match &by {
                // The windows that rows have already stay as they are.
                By::Attached(_) => columns.extend(WINDOW_COLUMNS.iter().filter_map(|name| input.column(name).cloned())),
                By::Window { window, .. } => {
                    let time = input
                        .column(window_time(window))
                        .map_or(DataType::Timestamp(3), |column| column.data_type.clone());
                    columns.extend(window_columns(&time));
                }
                By::Nothing => {}
            }
        }
        let mut named_calls: Vec<(Call, String)> = Vec::new();
        let mut aggregates: Vec<AggregateCall> = Vec::new();
        for (position, call) in calls.into_iter().enumerate() {
            let name =
                unique(&call.default_name(), |name| reserved(name) || columns.iter().any(|column| column.name == name));
            spans.parts.push((format!("/aggregates/{position}"), call.span));
            let aggregate = call.named(name.clone());
            match self.aggregate_column(&call, &aggregate, &input) {
                Ok(column) => columns.push(column),
                Err(Refused) => failed = true,
            }
            aggregates.push(aggregate);
            named_calls.push((call, name));
        }
        if failed {
            return Err(Refused);
        }
        let keys =
            named_keys.iter().map(|(expr, name)| NamedExpr { name: name.clone(), expr: expr.to_string() }).collect();
        let attached_input = matches!(by, By::Attached(_));
        let (operator, windows, window) = match by {
            By::Nothing => (Operator::Aggregate(Aggregate { keys, aggregates }), Windows::None, None),
            By::Attached(kind) => {
                let allowed_lateness = self.lateness;
                let operator = WindowAggregate { window: Window::Attached {}, keys, aggregates, allowed_lateness };
                (Operator::WindowAggregate(operator), Windows::Attached(kind), None)
            }
            By::Window { window, spans: of_window, kind } => {
                spans.parts.extend(window_spans(&of_window).parts);
                let operator =
                    WindowAggregate { window: window.clone(), keys, aggregates, allowed_lateness: self.lateness };
                (Operator::WindowAggregate(operator), Windows::Attached(kind), Some(window))
            }
        };
        if windowed {
            spans.parts.push(("/allowed_lateness".into(), self.lateness_span));
        }
        let node = self.nodes.add(operator, vec![relation.node], Schema::new(columns), spans);
        let relation = Relation { node, outputs: Vec::new(), windows, span };
        Ok(Grouped { relation, keys: named_keys, calls: named_calls, window, windowed, attached_input })
    }

    pub fn aggregate_column(&mut self, call: &Call, aggregate: &AggregateCall, input: &Schema) -> Planned<Column> {
        let argument = match &call.argument {
            Some(expr) => Some(self.typed(expr, input, call.span)?.0),
            None => None,
        };
        if let Some(filter) = &call.filter {
            self.is_predicate(filter, input, "FILTER (WHERE ...)", call.span)?;
        }
        match expr::aggregate_type(aggregate, argument.as_ref()) {
            Ok((data_type, nullable)) => Ok(Column::new(aggregate.name.clone(), data_type, nullable)),
            Err(error) => {
                let at = call.argument.as_ref().map_or(call.span, |argument| argument.span());
                let at = if at == Span::empty() { call.span } else { at };
                Err(self.expr_problem(expr::ExprError { span: None, ..error }, &column("", at), at))
            }
        }
    }

    /// The query's expressions over the aggregate's output: HAVING, the SELECT list, ORDER BY.
    fn over_groups(
        &mut self,
        grouped: Grouped,
        resolved: Resolved,
        after: Vec<Expr>,
    ) -> Planned<(Relation, Vec<SortItem>)> {
        let mut failed = false;
        let mut moved = |this: &mut Self, expr: Expr, span: Span| match this.over_group(&grouped, expr, span) {
            Ok(expr) => Some(expr),
            Err(Refused) => {
                failed = true;
                None
            }
        };
        let mut filters: Vec<Expr> = Vec::new();
        for part in after {
            let span = part.span();
            filters.extend(moved(self, part, span));
        }
        if let Some(having) = resolved.having {
            let span = having.span();
            filters.extend(moved(self, having, span));
        }
        let items: Vec<_> =
            resolved.items.into_iter().map(|item| (moved(self, item.expr, item.span), item.name, item.span)).collect();
        let mut order = Vec::new();
        for item in resolved.order {
            order.extend(moved(self, item.expr.clone(), item.span).map(|expr| SortItem { expr, ..item }));
        }
        if failed {
            return Err(Refused);
        }
        let mut relation = grouped.relation.clone();
        if let Some(filter) = all_of(filters) {
            relation = self.filtered(relation, filter, "HAVING")?;
        }
        let schema = self.nodes.schema(relation.node).clone();
        for (expr, name, span) in items {
            let expr = expr.expect("a failure was returned above");
            match self.typed(&expr, &schema, span) {
                Ok((data_type, nullable)) => relation.outputs.push(Output { name, expr, data_type, nullable, span }),
                Err(Refused) => failed = true,
            }
        }
        if failed { Err(Refused) } else { Ok((relation, order)) }
    }

    /// One expression over the aggregate's output.
    fn over_group(&mut self, grouped: &Grouped, mut expr: Expr, span: Span) -> Planned<Expr> {
        let mut refused: Vec<(String, Span)> = Vec::new();
        let mut windows = Vec::new();
        replace(&mut expr, &mut |part| {
            let at = part.span();
            if let Some((_, name)) = grouped.keys.iter().find(|(key, _)| key == part) {
                return Some(column(name, at));
            }
            match part {
                Expr::Function(function) if aggregates::is_aggregate(function) => {
                    let call = aggregates::read(function).ok()?;
                    let (_, name) = grouped.calls.iter().find(|(known, _)| known.equals(&call))?;
                    Some(column(name, call.span))
                }
                Expr::Function(_) if crate::windows::auxiliary(part).is_some() => {
                    windows.push((part.clone(), at));
                    let (_, index, _) = crate::windows::auxiliary(part)?;
                    Some(column(WINDOW_COLUMNS[index], at))
                }
                Expr::Identifier(_) if grouped.windowed && marked(part).is_some() => {
                    marked(part).map(|index| column(WINDOW_COLUMNS[index], at))
                }
                Expr::Identifier(name) if grouped.attached_input && WINDOW_COLUMNS.contains(&name.value.as_str()) => {
                    Some(part.clone())
                }
                Expr::Identifier(name) => {
                    refused.push((name.value.clone(), at));
                    Some(part.clone())
                }
                Expr::CompoundIdentifier(parts) => {
                    refused.push((parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join("."), at));
                    Some(part.clone())
                }
                _ => None,
            }
        });
        let mut failed = !refused.is_empty();
        for (call, at) in windows {
            let at = if at == Span::empty() { span } else { at };
            failed |= matches!(self.auxiliary_column(&call, grouped.window.as_ref(), at), Some(Err(Refused)));
        }
        for (name, at) in refused {
            let at = if at == Span::empty() { span } else { at };
            let hint = format!("add it to GROUP BY, or write MAX({name})");
            self.problem(
                "not_grouped",
                format!("the column {name} stands neither in GROUP BY nor in an aggregate"),
                hint,
                at,
            );
        }
        if failed { Err(Refused) } else { Ok(expr) }
    }
}

/// Which columns of the relation's windows are keys: 0 start, 1 end, 2 time.
fn window_parts(resolved: &Resolved, relation: &Relation) -> Vec<usize> {
    let keys = resolved.keys.iter().map(|(expr, _)| expr);
    match &relation.windows {
        Windows::Pending(_) => keys.filter_map(marked).collect(),
        Windows::Attached(_) => {
            keys.filter_map(|expr| WINDOW_COLUMNS.iter().position(|name| bare(expr) == Some(*name))).collect()
        }
        Windows::None => Vec::new(),
    }
}

/// Whether an expression uses nothing but keys and the columns of the window.
fn stands_on_keys(expr: &Expr, keys: &[Expr]) -> bool {
    let mut rest = expr.clone();
    replace(&mut rest, &mut |part| {
        keys.contains(part).then(|| Expr::value(datafusion_sql::sqlparser::ast::Value::Boolean(true)))
    });
    let mut stands = true;
    each_name(&rest, |name| stands &= marked(name).is_some());
    stands
}

fn short(expr: &Expr) -> String {
    let text = expr.to_string().replace('`', "");
    if text.chars().count() <= 60 { text } else { "key".to_string() }
}
