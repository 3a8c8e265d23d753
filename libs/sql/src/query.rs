//! Queries to relations: WITH, SELECT and UNION.

use datafusion_sql::sqlparser::ast::{
    self, CastKind, Distinct, Expr, GroupByExpr, Ident, ObjectName, OrderByKind, Query, Select, SelectFlavor,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Spanned, Value, ValueWithSpan,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Column, DataType, Filter, Operator, Schema, Union};

use crate::aggregates;
use crate::nodes::NodeSpans;
use crate::order::SortItem;
use crate::planner::Planner;
use crate::relation::{NotFound, Output, Relation, Scope, Windows, find, marked, unique, window_types};
use crate::resolve::{is_trivial, without_parentheses};
use crate::types;
use crate::windows::auxiliary;

/// Planning stopped; why stands among the problems.
#[derive(Debug)]
pub struct Refused;

pub type Planned<T> = Result<T, Refused>;

/// CTEs of one statement.
pub const CTES_MAX: usize = 200;
/// Text of a computed column, and parentheses in it, beyond which it is computed by itself, not put into the expression that uses it: views
/// over views would add up to expressions that are too complex.
const INLINE_CHARS_MAX: usize = 500;
const INLINE_PARENTHESES_MAX: usize = 8;

/// The CTEs in sight; `None` for one that was refused.
#[derive(Clone, Default)]
pub struct Ctes(pub Vec<(String, Option<Relation>)>);

/// An expression of the SELECT list, over the node's columns.
#[derive(Clone, Debug)]
pub struct Item {
    pub name: String,
    pub expr: Expr,
    pub span: Span,
}

/// A SELECT whose names are resolved.
pub struct Resolved {
    pub items: Vec<Item>,
    pub filter: Option<Expr>,
    pub keys: Vec<(Expr, Span)>,
    pub having: Option<Expr>,
    pub order: Vec<SortItem>,
    pub span: Span,
}

impl Resolved {
    pub fn exprs(&mut self) -> Vec<&mut Expr> {
        let items = self.items.iter_mut().map(|item| &mut item.expr);
        let keys = self.keys.iter_mut().map(|(expr, _)| expr);
        items
            .chain(keys)
            .chain(&mut self.filter)
            .chain(&mut self.having)
            .chain(self.order.iter_mut().map(|item| &mut item.expr))
            .collect()
    }
}

/// A scope of outputs that belong to no node yet; only their names and expressions count.
pub fn names_of(outputs: Vec<Output>, span: Span) -> Scope {
    Scope {
        relation: Relation { node: crate::nodes::NodeRef::none(), outputs, windows: Windows::None, span },
        qualifier: None,
    }
}

impl Planner<'_> {
    pub fn query(&mut self, query: &Query, outer: &Ctes) -> Planned<Relation> {
        let mut ctes = outer.clone();
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(self.unsupported("WITH RECURSIVE", "write the steps out as views", with.with_token.0.span));
            }
            if with.cte_tables.len() > CTES_MAX {
                let message = format!("the query has {} CTEs; {CTES_MAX} are the most", with.cte_tables.len());
                return Err(self.problem(
                    "query_too_complex",
                    message,
                    "split it with CREATE VIEW",
                    with.with_token.0.span,
                ));
            }
            for cte in &with.cte_tables {
                let name = &cte.alias.name;
                if ctes.0[outer.0.len()..].iter().any(|(known, _)| *known == name.value) {
                    return Err(self.problem(
                        "duplicate_name",
                        format!("the CTE {} is declared twice", name.value),
                        "rename one",
                        name.span,
                    ));
                }
                let relation = self.query(&cte.query, &ctes).and_then(|relation| self.aliased(relation, &cte.alias));
                ctes.0.push((name.value.clone(), relation.ok()));
            }
        }
        for (there, what) in [
            (!query.locks.is_empty(), "FOR UPDATE"),
            (query.for_clause.is_some(), "a FOR clause"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT"),
            (!query.pipe_operators.is_empty(), "|>"),
        ] {
            if there {
                return Err(self.unsupported(what, "remove it", query.span()));
            }
        }
        let limits = self.limits(query);
        let (relation, order) = match &*query.body {
            SetExpr::Select(select) => self.select(select, query, &ctes)?,
            body => {
                let relation = self.body(body, &ctes)?;
                let items = relation.outputs.iter();
                let items = items
                    .map(|o| Item { name: o.name.clone(), expr: o.expr.clone(), span: o.span })
                    .collect::<Vec<_>>();
                let order = self.order(query, &items, None)?;
                (relation, order)
            }
        };
        let (limit, offset) = limits?;
        if order.is_empty() && limit.is_none() && offset == 0 {
            return Ok(relation);
        }
        self.sorted(relation, order, limit, offset, query)
    }

    fn body(&mut self, body: &SetExpr, ctes: &Ctes) -> Planned<Relation> {
        match body {
            SetExpr::Query(query) => self.query(query, ctes),
            SetExpr::Select(select) => {
                let query = Query {
                    with: None,
                    body: Box::new(SetExpr::Select(select.clone())),
                    order_by: None,
                    limit_clause: None,
                    fetch: None,
                    locks: Vec::new(),
                    for_clause: None,
                    settings: None,
                    format_clause: None,
                    pipe_operators: Vec::new(),
                };
                self.select(select, &query, ctes).map(|(relation, _)| relation)
            }
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, .. } => {
                let distinct = match set_quantifier {
                    SetQuantifier::All => false,
                    SetQuantifier::Distinct | SetQuantifier::None => true,
                    other => {
                        return Err(self.unsupported(
                            format!("UNION {other}"),
                            "columns are matched by position; write UNION ALL",
                            body.span(),
                        ));
                    }
                };
                // The parser nests a chain of UNIONs to the left.
                let mut arms: Vec<&SetExpr> = Vec::new();
                let mut rest = body;
                while let SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier: quantifier, right } =
                    rest
                    && quantifier == set_quantifier
                {
                    arms.push(right);
                    rest = left;
                }
                arms.push(rest);
                arms.reverse();
                let planned: Vec<Planned<Relation>> = arms.iter().map(|arm| self.body(arm, ctes)).collect();
                let planned = planned.into_iter().collect::<Planned<Vec<Relation>>>()?;
                let relation = self.union(planned, body.span())?;
                if distinct { self.distinct(relation, body.span()) } else { Ok(relation) }
            }
            SetExpr::SetOperation { op, .. } => {
                let hint = "it needs a join, which is not there yet; filter with WHERE";
                Err(self.unsupported(op, hint, body.span()))
            }
            SetExpr::Values(values) => {
                let span = values.span();
                Err(self.unsupported("VALUES", "read the rows from a table, such as a file of JSON lines", span))
            }
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                let hint = format!("write SELECT * FROM {name}");
                Err(self.unsupported(format!("TABLE {name}"), &hint, body.span()))
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => Err(self.unsupported(
                "a statement that writes, inside a query",
                "write INSERT INTO ... SELECT",
                body.span(),
            )),
        }
    }

    /// All rows of all arms, cast to common types.
    fn union(&mut self, mut arms: Vec<Relation>, span: Span) -> Planned<Relation> {
        let first = arms[0].clone();
        let mut columns: Vec<Column> = first.outputs.iter().map(Output::column).collect();
        for (position, arm) in arms.iter().enumerate().skip(1) {
            if arm.outputs.len() != columns.len() {
                let message = format!(
                    "query {} of the UNION has {} columns, the first has {}",
                    position + 1,
                    arm.outputs.len(),
                    columns.len()
                );
                return Err(self.problem("wrong_columns", message, "select as many columns in each", arm.span));
            }
            for (at, (target, output)) in columns.iter_mut().zip(&arm.outputs).enumerate() {
                match types::common(&target.data_type, &output.data_type) {
                    Some(data_type) => {
                        *target = Column::new(target.name.clone(), data_type, target.nullable || output.nullable)
                    }
                    None => {
                        let message = format!(
                            "column {} of the UNION is {} in the first query and {} in query {}",
                            at + 1,
                            target.data_type,
                            output.data_type,
                            position + 1
                        );
                        return Err(self.problem(
                            "type_mismatch",
                            message,
                            format!("write CAST(... AS {})", target.data_type),
                            output.span,
                        ));
                    }
                }
            }
        }
        let mut inputs = Vec::new();
        for arm in &mut arms {
            inputs.push(self.exact(arm.clone(), Some(&columns))?);
        }
        let node = self.nodes.add(Operator::Union(Union {}), inputs, Schema::new(columns), NodeSpans::new(span));
        Ok(self.all_columns(node, span))
    }

    fn refuse_clauses(&mut self, select: &Select) -> Planned<()> {
        let span = select.select_token.0.span;
        let clauses = [
            (select.top.is_some(), "TOP", "write LIMIT n"),
            (select.into.is_some(), "SELECT INTO", "write INSERT INTO table SELECT ..."),
            (!select.lateral_views.is_empty(), "LATERAL VIEW", "compute it in the SELECT list"),
            (select.prewhere.is_some(), "PREWHERE", "write WHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY", "there are no recursive queries"),
            (
                !select.cluster_by.is_empty() || !select.distribute_by.is_empty() || !select.sort_by.is_empty(),
                "SORT BY",
                "write ORDER BY",
            ),
            (
                !select.named_window.is_empty(),
                "WINDOW",
                "aggregate with GROUP BY over TUMBLE, HOP, CUMULATE or SESSION",
            ),
            (select.qualify.is_some(), "QUALIFY", "top-n is not there yet; filter with HAVING"),
            (select.value_table_mode.is_some() || select.exclude.is_some(), "this form of SELECT", "name the columns"),
            (select.flavor != SelectFlavor::Standard, "FROM before SELECT", "write SELECT ... FROM ..."),
            (matches!(select.distinct, Some(Distinct::On(_))), "DISTINCT ON", "write FIRST_VALUE(x) with GROUP BY"),
        ];
        for (there, what, hint) in clauses {
            if there {
                return Err(self.unsupported(what, hint, span));
            }
        }
        Ok(())
    }

    fn select(&mut self, select: &Select, query: &Query, ctes: &Ctes) -> Planned<(Relation, Vec<SortItem>)> {
        self.refuse_clauses(select)?;
        let scope = self.from(&select.from, select, ctes)?;
        let scope = self.settled(scope, select, query);
        let span = select.span();
        let mut failed = false;
        let mut partly = Vec::new();
        let filter = self.optional(&scope, select.selection.as_ref(), "WHERE", false, &mut partly);
        let having = self.optional(&scope, select.having.as_ref(), "HAVING", true, &mut partly);
        failed |= !partly.is_empty();
        let items = self.items(&scope, select, &mut failed)?;
        let keys = self.keys(&scope, select, &items).map_err(|_| failed = true).unwrap_or_default();
        let order = self.order(query, &items, Some(&scope)).map_err(|_| failed = true).unwrap_or_default();
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let resolved = Resolved { items, filter, keys, having, order, span };
        // Wherever planning stops, the types of what it did not come to are checked: all that can be said is said at once.
        let mut checked = Vec::new();
        checked.extend(resolved.filter.iter().map(|expr| (expr.clone(), Some("WHERE"))));
        checked.extend(resolved.having.iter().map(|expr| (expr.clone(), Some("HAVING"))));
        checked.extend(partly.into_iter().flatten().map(|expr| (expr, None)));
        checked.extend(resolved.items.iter().map(|item| (item.expr.clone(), None)));
        checked.extend(resolved.keys.iter().map(|(expr, _)| (expr.clone(), None)));
        checked.extend(resolved.order.iter().map(|item| (item.expr.clone(), None)));
        let relation = scope.relation.clone();
        let planned = if failed { Err(Refused) } else { self.resolved(scope, select, resolved, grouped) };
        if planned.is_err() {
            self.check_types(&relation, checked, span);
        }
        planned
    }

    /// Reports what is wrong with the types of expressions over a relation, whose aggregates and windows are taken for values of their
    /// types. With a clause, the expression is to be a predicate.
    fn check_types(&mut self, relation: &Relation, exprs: Vec<(Expr, Option<&'static str>)>, span: Span) {
        let schema = self.nodes.schema(relation.node).clone();
        let marks = match &relation.windows {
            Windows::Pending(pending) => window_types(&pending.time_type),
            _ => window_types(&DataType::Timestamp(3)),
        };
        for (mut expr, clause) in exprs {
            if let Some(clause) = clause
                && !contains_aggregate(&expr)
                && !crate::resolve::uses_marks(&expr)
            {
                let _ = self.is_predicate(&expr, &schema, clause, span);
                continue;
            }
            let whole = expr.span();
            crate::resolve::replace(&mut expr, &mut |part| match part {
                Expr::Function(function) if aggregates::is_aggregate(function) => {
                    let call = aggregates::read(function).map_err(|problem| self.problems.push(problem)).ok();
                    let column = call.and_then(|call| self.checked_call(call, &schema, &marks));
                    Some(column.map_or_else(|| unknown(part.span()), |column| null_of(&column.data_type, part.span())))
                }
                Expr::Function(function) if auxiliary(part).is_some() || crate::windows::is_group_window(function) => {
                    Some(null_of(&marks[0], part.span()))
                }
                part => marked(part).map(|index| null_of(&marks[index], part.span())),
            });
            let at = if whole == Span::empty() { span } else { whole };
            let Err(errors) = expr::compile_all(&expr, &schema, &self.env) else { continue };
            // A NULL without a type stands for what was refused already.
            for error in errors.into_iter().filter(|error| error.code != "untyped_null") {
                let _ = self.expr_problem(error, &expr, at);
            }
        }
    }

    /// The result column of an aggregate, its argument and filter checked; nothing where its argument has no type.
    fn checked_call(&mut self, mut call: aggregates::Call, schema: &Schema, marks: &[DataType; 3]) -> Option<Column> {
        let unmark = |expr: &mut Expr| {
            crate::resolve::replace(expr, &mut |part| marked(part).map(|index| null_of(&marks[index], part.span())));
        };
        call.argument.iter_mut().chain(&mut call.filter).for_each(unmark);
        if let Some(argument) = &call.argument
            && let Err(errors) = expr::compile_all(argument, schema, &self.env)
        {
            for error in errors.into_iter().filter(|error| error.code != "untyped_null") {
                let _ = self.expr_problem(error, argument, call.span);
            }
            return None;
        }
        let aggregate = call.named(String::new());
        self.aggregate_column(&call, &aggregate, schema).ok()
    }

    /// The relation of a SELECT whose names are resolved.
    fn resolved(
        &mut self,
        scope: Scope,
        select: &Select,
        mut resolved: Resolved,
        grouped: bool,
    ) -> Planned<(Relation, Vec<SortItem>)> {
        let span = resolved.span;
        let aggregates = resolved
            .items
            .iter()
            .map(|item| &item.expr)
            .chain(&resolved.having)
            .chain(resolved.order.iter().map(|item| &item.expr));
        let aggregates = aggregates.map(contains_aggregate).fold(false, |a, b| a | b);
        let distinct = matches!(select.distinct, Some(Distinct::Distinct));
        let (relation, order) = if grouped || aggregates || resolved.having.is_some() {
            self.grouped(scope.relation, resolved)?
        } else {
            let order = std::mem::take(&mut resolved.order);
            self.plain(scope.relation, resolved, order)?
        };
        if !distinct {
            return Ok((relation, order));
        }
        let before = relation.clone();
        let relation = self.distinct(relation, span)?;
        let mut moved = Vec::new();
        for item in order {
            match before.outputs.iter().position(|output| output.expr == item.expr) {
                Some(at) => moved.push(SortItem { expr: relation.outputs[at].expr.clone(), ..item }),
                None => {
                    let message = "ORDER BY of a SELECT DISTINCT can only name its columns";
                    return Err(self.problem(
                        "not_grouped",
                        message,
                        "add the expression to the SELECT list",
                        item.span,
                    ));
                }
            }
        }
        Ok((relation, moved))
    }

    fn optional(
        &mut self,
        scope: &Scope,
        expr: Option<&Expr>,
        clause: &'static str,
        aggregates: bool,
        partly: &mut Vec<Option<Expr>>,
    ) -> Option<Expr> {
        let resolved = scope.names(clause, aggregates).resolve_partly(expr?, &mut self.problems);
        resolved.map_err(|rest| partly.push(rest.map(|rest| *rest))).ok()
    }

    /// The relation with computed columns made into a node, where the query would compute one more than once.
    fn settled(&mut self, scope: Scope, select: &Select, query: &Query) -> Scope {
        let computed = |output: &Output| !is_trivial(&output.expr);
        if !scope.relation.outputs.iter().any(computed) {
            return scope;
        }
        let mut uses = vec![0usize; scope.relation.outputs.len()];
        let names = scope.names("SELECT", true);
        let mut count = |expr: &Expr| {
            let mut seen = expr.clone();
            crate::resolve::each_written_name(&mut seen, &mut |parts| {
                if let Ok((at, _)) = names.lookup(parts) {
                    uses[at] += 1;
                }
            });
        };
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => count(expr),
                _ => {}
            }
        }
        select.selection.iter().chain(&select.having).for_each(&mut count);
        if let GroupByExpr::Expressions(keys, _) = &select.group_by {
            // A key that is also selected is computed once.
            keys.iter().filter(|key| !matches!(key, Expr::Identifier(_))).for_each(&mut count);
        }
        if let Some(order) = &query.order_by
            && let OrderByKind::Expressions(items) = &order.kind
        {
            items.iter().filter(|item| !matches!(item.expr, Expr::Identifier(_))).for_each(|item| count(&item.expr));
        }
        let outputs = scope.relation.outputs.iter().zip(&uses);
        let again = outputs
            .filter(|(output, _)| computed(output))
            .any(|(output, uses)| *uses > 1 || (*uses == 1 && is_large(&output.expr)));
        if !again || matches!(scope.relation.windows, Windows::Pending(_)) {
            return scope;
        }
        Scope { relation: self.projected(scope.relation, true), qualifier: scope.qualifier }
    }

    /// The SELECT list. An expression that is refused leaves a NULL, so that the names and positions of the others hold.
    fn items(&mut self, scope: &Scope, select: &Select, failed: &mut bool) -> Planned<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        let all = |span: Span| {
            let outputs = scope.relation.outputs.iter();
            outputs.map(move |o| Item { name: o.name.clone(), expr: respanned(&o.expr, span), span })
        };
        for item in &select.projection {
            let (expr, alias) = match item {
                SelectItem::UnnamedExpr(expr) => (expr, None),
                SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
                SelectItem::ExprWithAliases { .. } => {
                    return Err(self.unsupported("several aliases of one expression", "write one alias", item.span()));
                }
                SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
                    let span = item.span();
                    if *options != Default::default() && options.to_string() != "" {
                        return Err(self.unsupported("a modified *", "name the columns", span));
                    }
                    if let SelectItem::QualifiedWildcard(kind, _) = item {
                        let name = match kind {
                            SelectItemQualifiedWildcardKind::ObjectName(name) => name.to_string().replace('`', ""),
                            SelectItemQualifiedWildcardKind::Expr(expr) => expr.to_string(),
                        };
                        if !scope.qualifier.as_ref().is_some_and(|q| q.eq_ignore_ascii_case(&name)) {
                            let hint =
                                scope.qualifier.as_ref().map_or("write *".to_string(), |q| format!("write {q}.*"));
                            return Err(self.problem(
                                "unknown_table",
                                format!("there is no table {name} here"),
                                hint,
                                span,
                            ));
                        }
                    }
                    items.extend(all(span));
                    continue;
                }
            };
            let span = match (expr.span(), alias) {
                (own, Some(alias)) => own.union(&alias.span),
                (own, None) => own,
            };
            let resolved =
                scope.names("SELECT", true).resolve_partly(expr, &mut self.problems).unwrap_or_else(|rest| {
                    *failed = true;
                    rest.map_or_else(|| unknown(expr.span()), |rest| *rest)
                });
            let name = match (alias, expr) {
                (Some(alias), _) => alias.value.clone(),
                (None, Expr::Identifier(name)) => match scope.names("SELECT", true).output(name) {
                    Some(at) => scope.relation.outputs[at].name.clone(),
                    None => name.value.clone(),
                },
                (None, Expr::CompoundIdentifier(parts)) => {
                    parts.last().map(|part| part.value.clone()).unwrap_or_default()
                }
                (None, other) => {
                    let text = other.to_string().replace('`', "");
                    if text.chars().count() <= 60 { text } else { format!("EXPR${}", items.len()) }
                }
            };
            items.push(Item { name, expr: resolved, span });
        }
        // As in Flink, the second `a` is `a0`.
        for at in 1..items.len() {
            let (before, rest) = items.split_at_mut(at);
            rest[0].name = unique(&rest[0].name, |name| before.iter().any(|item| item.name == name));
        }
        Ok(items)
    }

    /// The keys of GROUP BY: columns, expressions, positions and aliases of the SELECT list.
    fn keys(&mut self, scope: &Scope, select: &Select, items: &[Item]) -> Planned<Vec<(Expr, Span)>> {
        let (exprs, modifiers) = match &select.group_by {
            GroupByExpr::Expressions(exprs, modifiers) => (exprs, modifiers),
            GroupByExpr::All(_) => {
                return Err(self.unsupported("GROUP BY ALL", "name the keys", select.group_by.span()));
            }
        };
        if let Some(modifier) = modifiers.first() {
            return Err(self.unsupported(
                modifier,
                "write one SELECT per grouping, with UNION ALL",
                select.group_by.span(),
            ));
        }
        let mut flat: Vec<&Expr> = Vec::new();
        for expr in exprs {
            match expr {
                Expr::Tuple(parts) => flat.extend(parts),
                other => flat.push(other),
            }
        }
        let mut keys = Vec::new();
        let mut failed = false;
        for expr in flat {
            let span = expr.span();
            let resolved = match without_parentheses(expr) {
                Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => {
                    match self.ordinal(text, items.len(), "GROUP BY", span) {
                        Ok(at) => Some(items[at].expr.clone()),
                        Err(Refused) => None,
                    }
                }
                Expr::Identifier(name)
                    if scope.names("GROUP BY", false).output(name).is_none() && aliased(items, name).is_some() =>
                {
                    aliased(items, name).map(|item| item.expr.clone())
                }
                expr => scope.names("GROUP BY", false).resolve(expr, &mut self.problems),
            };
            match resolved {
                Some(expr) if contains_aggregate(&expr) => {
                    self.problem(
                        "misplaced_aggregate",
                        "GROUP BY cannot name an aggregate",
                        "group by a column or an expression without aggregates",
                        span,
                    );
                    failed = true;
                }
                Some(expr) if keys.iter().any(|(known, _)| *known == expr) => {}
                Some(expr) => keys.push((expr, span)),
                None => failed = true,
            }
        }
        if failed { Err(Refused) } else { Ok(keys) }
    }

    /// The item at a position, counted from 1 in the text and from 0 in the result.
    pub fn ordinal(&mut self, text: &str, count: usize, clause: &str, span: Span) -> Planned<usize> {
        match text.parse::<usize>() {
            Ok(at) if (1..=count).contains(&at) => Ok(at - 1),
            _ => {
                let message = format!("{clause} {text}: the SELECT list has positions 1 to {count}");
                Err(self.problem("unknown_column", message, "name the column instead", span))
            }
        }
    }

    /// A SELECT that neither groups nor aggregates.
    fn plain(
        &mut self,
        mut relation: Relation,
        mut resolved: Resolved,
        mut order: Vec<SortItem>,
    ) -> Planned<(Relation, Vec<SortItem>)> {
        for item in &resolved.items {
            let mut found = None;
            crate::resolve::each_function(&item.expr, &mut |call| {
                found = found.take().or(auxiliary(call).map(|(function, ..)| function))
            });
            if let Some(function) = found {
                let message = format!("{function}_START and its like speak of a group");
                return Err(self.problem(
                    "invalid_window",
                    message,
                    format!("write GROUP BY {function}(...)"),
                    item.span,
                ));
            }
        }
        let computed = |expr: &Expr| marked(expr).is_none() && crate::resolve::uses_marks(expr);
        let over_windows = resolved.items.iter().any(|item| computed(&item.expr))
            || resolved.filter.as_ref().is_some_and(crate::resolve::uses_marks)
            || order.iter().any(|item| crate::resolve::uses_marks(&item.expr));
        let is_session = crate::grouping::is_session(&relation);
        if over_windows || (is_session && resolved.filter.is_some()) {
            let mut exprs = resolved.exprs();
            exprs.extend(order.iter_mut().map(|item| &mut item.expr));
            relation = self.assigned_with(relation, &mut exprs)?;
        }
        if let Some(filter) = resolved.filter.take() {
            relation = self.filtered(relation, filter, "WHERE")?;
        }
        let schema = self.nodes.schema(relation.node).clone();
        let time_type = match &relation.windows {
            Windows::Pending(pending) => Some(pending.time_type.clone()),
            _ => None,
        };
        let mut outputs = Vec::new();
        let mut failed = false;
        for item in resolved.items {
            let (data_type, nullable) = match (marked(&item.expr), &time_type) {
                (Some(index), Some(time_type)) => (window_types(time_type)[index].clone(), false),
                _ => match self.typed(&item.expr, &schema, item.span) {
                    Ok(typed) => typed,
                    Err(Refused) => {
                        failed = true;
                        continue;
                    }
                },
            };
            outputs.push(Output { name: item.name, expr: item.expr, data_type, nullable, span: item.span });
        }
        if failed {
            return Err(Refused);
        }
        Ok((Relation { outputs, span: resolved.span, ..relation }, order))
    }

    /// The relation's rows for which a predicate over its node holds.
    pub fn filtered(&mut self, mut relation: Relation, predicate: Expr, clause: &str) -> Planned<Relation> {
        let span = if predicate.span() == Span::empty() { relation.span } else { predicate.span() };
        let schema = self.nodes.schema(relation.node).clone();
        self.is_predicate(&predicate, &schema, clause, span)?;
        let filter = Filter { predicate: predicate.to_string() };
        relation.node = self.nodes.add(
            Operator::Filter(filter),
            vec![relation.node],
            schema,
            NodeSpans::new(span).part("/predicate", span),
        );
        Ok(relation)
    }
}

/// Stands for a value of which nothing is known.
fn unknown(span: Span) -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span })
}

/// A value of a type, of which no more is known.
fn null_of(data_type: &DataType, span: Span) -> Expr {
    let data_type = ast::DataType::Custom(ObjectName::from(vec![Ident::new(data_type.to_string())]), Vec::new());
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(unknown(span)), data_type, array: false, format: None }
}

fn aliased<'a>(items: &'a [Item], name: &Ident) -> Option<&'a Item> {
    match find(&name.value, items.iter().map(|item| item.name.as_str())) {
        Ok(at) => Some(&items[at]),
        Err(NotFound::Unknown(_) | NotFound::Ambiguous(_)) => None,
    }
}

fn is_large(expr: &Expr) -> bool {
    let text = expr.to_string();
    text.len() > INLINE_CHARS_MAX || text.matches('(').count() > INLINE_PARENTHESES_MAX
}

pub fn contains_aggregate(expr: &Expr) -> bool {
    let mut found = false;
    crate::resolve::each_function(expr, &mut |call| {
        found |= matches!(call, Expr::Function(function) if aggregates::is_aggregate(function));
    });
    found
}

fn respanned(expr: &Expr, span: Span) -> Expr {
    match expr {
        Expr::Identifier(name) => Expr::Identifier(Ident { span, ..name.clone() }),
        other => other.clone(),
    }
}
