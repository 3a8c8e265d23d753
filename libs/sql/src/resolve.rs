//! Expressions of a query to expressions over a node's columns: names are resolved, what cannot stand there is refused by name.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned,
    Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::Problem;

use crate::aggregates;
use crate::place;
use crate::relation::{NotFound, Relation, bare, find, ident, marked};

/// The names that an expression may use.
pub struct Names<'a> {
    pub relation: &'a Relation,
    pub qualifier: Option<&'a str>,
    /// Said in refusals: `WHERE`, `SELECT`, ...
    pub clause: &'static str,
    pub aggregates: bool,
}

impl Names<'_> {
    /// Resolves the names of an expression; `None` after reporting what is wrong.
    pub fn resolve(&self, expr: &Expr, problems: &mut Vec<Problem>) -> Option<Expr> {
        self.resolve_partly(expr, problems).ok()
    }

    /// The same; the error is the expression with NULL in the place of unknown names, if all else could be resolved: the types of the rest
    /// can be checked.
    pub fn resolve_partly(&self, expr: &Expr, problems: &mut Vec<Problem>) -> Result<Expr, Option<Box<Expr>>> {
        let mut expr = expr.clone();
        let before = problems.len();
        let mut resolver = Resolver { names: self, problems, inside_aggregate: 0 };
        let whole = expr.visit(&mut resolver).is_continue();
        match problems.len() == before {
            true => Ok(expr),
            false => Err(whole.then(|| Box::new(expr))),
        }
    }

    /// The output that a name means, without a report.
    pub fn output(&self, name: &Ident) -> Option<usize> {
        find(&name.value, self.relation.outputs.iter().map(|output| output.name.as_str())).ok()
    }

    /// Which output a (qualified) name means, and how many of its parts say so.
    pub fn lookup(&self, parts: &[Ident]) -> Result<(usize, usize), Problem> {
        let span = parts.iter().map(|part| part.span).reduce(|a, b| a.union(&b)).unwrap_or(Span::empty());
        let qualified = parts.len() > 1
            && self.qualifier.is_some_and(|q| q == parts[0].value || q.eq_ignore_ascii_case(&parts[0].value));
        let names = || self.relation.outputs.iter().map(|output| output.name.as_str());
        let first = usize::from(qualified);
        // A ROW column may have the name of its table.
        if qualified
            && find(&parts[1].value, names()).is_err()
            && let Ok(at) = find(&parts[0].value, names())
        {
            return Ok((at, 1));
        }
        match find(&parts[first].value, names()) {
            Ok(at) => Ok((at, first + 1)),
            Err(NotFound::Ambiguous(hint)) => {
                let message = format!("the column {} is ambiguous", parts[first].value);
                Err(Problem::new("ambiguous_column", message).hint(hint).at(place(span)))
            }
            Err(NotFound::Unknown(_)) if parts.len() > 1 && !qualified && self.qualifier.is_some() => {
                let message = format!("there is no table {} here", parts[0].value);
                let hint = format!("write {}.{}", self.qualifier.unwrap_or_default(), parts[1].value);
                Err(Problem::new("unknown_table", message).hint(hint).at(place(span)))
            }
            Err(NotFound::Unknown(hint)) => {
                let message = format!("there is no column {}", parts[first].value);
                Err(Problem::new("unknown_column", message).hint(hint).at(place(span)))
            }
        }
    }
}

struct Resolver<'a> {
    names: &'a Names<'a>,
    problems: &'a mut Vec<Problem>,
    inside_aggregate: usize,
}

impl Resolver<'_> {
    fn refuse(&mut self, what: &str, hint: &str, span: Span) -> ControlFlow<()> {
        self.problems.push(Problem::new("unsupported", format!("{what} is not supported")).hint(hint).at(place(span)));
        ControlFlow::Break(())
    }
}

impl VisitorMut for Resolver<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.refuse("a subquery in an expression", "compute it in a view or in FROM", query.span())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        hide(expr);
        let span = expr.span();
        match expr {
            Expr::Subquery(query) => {
                self.refuse("a subquery in an expression", "compute it in a view or in FROM", query.span())
            }
            Expr::Exists { subquery, .. } => {
                self.refuse("EXISTS (subquery)", "it needs a join, which is not there yet", subquery.span())
            }
            Expr::InSubquery { .. } => self.refuse("IN (subquery)", "write the values out, or filter with WHERE", span),
            Expr::InUnnest { .. } => self.refuse("IN UNNEST", "write IN (values)", span),
            Expr::GroupingSets(_) => {
                self.refuse("GROUPING SETS", "write one SELECT per grouping, with UNION ALL", span)
            }
            Expr::Cube(_) => self.refuse("CUBE", "write one SELECT per grouping, with UNION ALL", span),
            Expr::Rollup(_) => self.refuse("ROLLUP", "write one SELECT per grouping, with UNION ALL", span),
            Expr::Lambda(_) => self.refuse("a lambda", "use functions of whole values", span),
            Expr::Prior(_) => self.refuse("PRIOR", "there is no CONNECT BY", span),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                self.refuse("* in an expression", "name the columns", span)
            }
            Expr::Value(ValueWithSpan { value: Value::DoubleQuotedString(text), span }) => {
                let problem = Problem::new("sql_syntax", format!("\"{text}\" is neither a text nor a name"));
                self.problems.push(
                    problem.hint(format!("write '{text}' for the text, `{text}` for the column")).at(place(*span)),
                );
                ControlFlow::Break(())
            }
            Expr::Value(ValueWithSpan { value: Value::Placeholder(text), span }) => {
                let what = format!("the placeholder {text}");
                let span = *span;
                self.refuse(&what, "write the value", span)
            }
            Expr::Function(function) => self.function(function, span),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        restore(expr);
        let parts: Vec<Ident> = match expr {
            Expr::Identifier(name) => vec![name.clone()],
            Expr::CompoundIdentifier(parts) => parts.clone(),
            Expr::Function(function) => {
                if aggregates::is_aggregate(function) {
                    self.inside_aggregate -= 1;
                }
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        match self.names.lookup(&parts) {
            Ok((at, used)) => {
                let span = parts.iter().map(|part| part.span).reduce(|a, b| a.union(&b)).unwrap_or(Span::empty());
                *expr = with_fields(respan(&self.names.relation.outputs[at].expr, span), &parts[used..]);
            }
            // The rest of the expression may hold more unknown names.
            Err(problem) => {
                self.problems.push(problem);
                *expr = Expr::Value(ValueWithSpan { value: Value::Null, span: expr.span() });
            }
        }
        ControlFlow::Continue(())
    }
}

impl Resolver<'_> {
    fn function(&mut self, function: &mut Function, span: Span) -> ControlFlow<()> {
        let name = function_name(function);
        if function.over.is_some() {
            let hint = match name.as_str() {
                "ROW_NUMBER" | "RANK" | "DENSE_RANK" => {
                    "top-n is not there yet; on a bounded input ORDER BY ... LIMIT n gives one"
                }
                _ => "aggregate with GROUP BY over a window function: TUMBLE, HOP, CUMULATE or SESSION",
            };
            return self.refuse(&format!("{name} OVER"), hint, span);
        }
        if let Some(hint) = aggregates::refused(&name) {
            return self.refuse(&name, hint, span);
        }
        if aggregates::is_aggregate(function) {
            if !self.names.aggregates {
                let message = format!("the aggregate {name} cannot stand in {}", self.names.clause);
                let hint = if self.names.clause == "WHERE" { "write it in HAVING" } else { "compute it in a subquery" };
                self.problems.push(Problem::new("misplaced_aggregate", message).hint(hint).at(place(span)));
                return ControlFlow::Break(());
            }
            if self.inside_aggregate > 0 {
                let message = format!("the aggregate {name} stands inside another aggregate");
                let problem = Problem::new("misplaced_aggregate", message).hint("compute the inner one in a subquery");
                self.problems.push(problem.at(place(span)));
                return ControlFlow::Break(());
            }
            self.inside_aggregate += 1;
        }
        ControlFlow::Continue(())
    }
}

/// The name of a function in upper case.
pub fn function_name(function: &Function) -> String {
    function.name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_uppercase()).unwrap_or_default()
}

/// Names inside an expression that are no columns: the unit of `TIMESTAMPDIFF(MINUTE, a, b)`, the field of `(row).field`.
fn other_names(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::Function(function) if UNIT_FUNCTIONS.contains(&function_name(function).as_str()) => {
            match &mut function.args {
                FunctionArguments::List(list) => match list.args.first_mut() {
                    Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) => vec![unit],
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            }
        }
        Expr::CompoundFieldAccess { access_chain, .. } => access_chain
            .iter_mut()
            .filter_map(|access| match access {
                AccessExpr::Dot(field) => Some(field),
                AccessExpr::Subscript(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

const UNIT_FUNCTIONS: &[&str] = &["TIMESTAMPDIFF", "TIMESTAMPADD", "TIMESTAMP_DIFF", "TIMESTAMP_ADD"];
/// Begins the text that stands for such a name while the columns are visited.
const HIDDEN: &str = "\u{1}name ";

fn hide(expr: &mut Expr) {
    join_parts(expr);
    for name in other_names(expr) {
        if let Expr::Identifier(ident) = name {
            let value = Value::SingleQuotedString(format!("{HIDDEN}{}", ident.value));
            *name = Expr::Value(ValueWithSpan { value, span: ident.span });
        }
    }
}

/// `t.row.field[1]`: the parser takes the first part for the root alone; the names at the front are one name.
fn join_parts(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    let mut parts = match &**root {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        _ => return,
    };
    let front = access_chain.iter().map_while(|access| match access {
        AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
        _ => None,
    });
    let front: Vec<Ident> = front.collect();
    access_chain.drain(..front.len());
    parts.extend(front);
    let name = if parts.len() == 1 { Expr::Identifier(parts.remove(0)) } else { Expr::CompoundIdentifier(parts) };
    if access_chain.is_empty() {
        *expr = name;
    } else {
        **root = name;
    }
}

fn restore(expr: &mut Expr) {
    let is_field = matches!(expr, Expr::CompoundFieldAccess { .. });
    for name in other_names(expr) {
        if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) = name
            && let Some(hidden) = text.strip_prefix(HIDDEN)
        {
            let span = *span;
            *name = Expr::Identifier(if is_field { ident(hidden, span) } else { Ident::with_span(span, hidden) });
        }
    }
}

/// A copy whose bare name has the place of its use; a computed one stands in parentheses and keeps its own places.
fn respan(expr: &Expr, span: Span) -> Expr {
    match expr {
        Expr::Identifier(name) => Expr::Identifier(Ident { span, ..name.clone() }),
        Expr::Value(value) => Expr::Value(ValueWithSpan { span, ..value.clone() }),
        Expr::Function(_) | Expr::Nested(_) | Expr::Cast { .. } | Expr::CompoundIdentifier(_) => expr.clone(),
        other => Expr::Nested(Box::new(other.clone())),
    }
}

/// Fields of a ROW column: `column.field`.
fn with_fields(expr: Expr, fields: &[Ident]) -> Expr {
    if fields.is_empty() {
        return expr;
    }
    let field = |name: &Ident| ident(&name.value, name.span);
    match expr {
        Expr::Identifier(name) => {
            Expr::CompoundIdentifier(std::iter::once(name).chain(fields.iter().map(field)).collect())
        }
        Expr::CompoundIdentifier(parts) => {
            Expr::CompoundIdentifier(parts.into_iter().chain(fields.iter().map(field)).collect())
        }
        other => Expr::CompoundFieldAccess {
            root: Box::new(other),
            access_chain: fields.iter().map(|name| AccessExpr::Dot(Expr::Identifier(field(name)))).collect(),
        },
    }
}

/// Every name that an expression uses: node columns and marks, first parts only.
pub fn each_name(expr: &Expr, mut seen: impl FnMut(&Expr)) {
    let mut expr = expr.clone();
    let _ = expr.visit(&mut Walk(&mut |part: &mut Expr| {
        match part {
            Expr::Identifier(_) => seen(part),
            Expr::CompoundIdentifier(parts) => seen(&Expr::Identifier(parts[0].clone())),
            _ => {}
        }
        ControlFlow::Continue(())
    }));
}

/// Every name in an expression as it was written, in parts.
pub fn each_written_name(expr: &mut Expr, seen: &mut dyn FnMut(&[Ident])) {
    let _ = expr.visit(&mut Walk(&mut |part: &mut Expr| {
        match part {
            Expr::Identifier(name) => seen(std::slice::from_ref(name)),
            Expr::CompoundIdentifier(parts) => seen(parts),
            _ => {}
        }
        ControlFlow::Continue(())
    }));
}

/// Every function call in an expression.
pub fn each_function(expr: &Expr, seen: &mut dyn FnMut(&Expr)) {
    let mut expr = expr.clone();
    let _ = expr.visit(&mut Walk(&mut |part: &mut Expr| {
        if matches!(part, Expr::Function(_)) {
            seen(part);
        }
        ControlFlow::Continue(())
    }));
}

/// Replaces whole subexpressions, outermost first; what was replaced is not entered.
pub fn replace(expr: &mut Expr, replacement: &mut dyn FnMut(&Expr) -> Option<Expr>) {
    let _ = expr.visit(&mut Replace { replacement, done: None });
}

struct Walk<'a>(&'a mut dyn FnMut(&mut Expr) -> ControlFlow<()>);

impl VisitorMut for Walk<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        hide(expr);
        (self.0)(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        restore(expr);
        ControlFlow::Continue(())
    }
}

struct Replace<'a> {
    replacement: &'a mut dyn FnMut(&Expr) -> Option<Expr>,
    /// Inside of what was replaced: how deep, so that it is left alone.
    done: Option<usize>,
}

impl VisitorMut for Replace<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(depth) = &mut self.done {
            *depth += 1;
            return ControlFlow::Continue(());
        }
        if let Some(new) = (self.replacement)(expr) {
            *expr = new;
            self.done = Some(0);
        } else {
            hide(expr);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match &mut self.done {
            Some(0) => self.done = None,
            Some(depth) => *depth -= 1,
            None => restore(expr),
        }
        ControlFlow::Continue(())
    }
}

/// Whether a pending window's columns are used by more than their bare names.
pub fn uses_marks(expr: &Expr) -> bool {
    let mut found = false;
    each_name(expr, |name| found |= marked(name).is_some());
    found
}

/// The parts of `a AND b AND ...`.
pub fn conjuncts(expr: Expr) -> Vec<Expr> {
    let mut parts = Vec::new();
    let mut rest = vec![expr];
    while let Some(expr) = rest.pop() {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                rest.push(*right);
                rest.push(*left);
            }
            Expr::Nested(inner) if matches!(*inner, Expr::BinaryOp { op: BinaryOperator::And, .. }) => {
                rest.push(*inner)
            }
            other => parts.push(other),
        }
    }
    parts
}

/// `a AND b AND ...` again.
pub fn all_of(parts: Vec<Expr>) -> Option<Expr> {
    let wrap = |expr: Expr| match expr {
        Expr::BinaryOp { op: BinaryOperator::Or | BinaryOperator::Xor, .. } => Expr::Nested(Box::new(expr)),
        other => other,
    };
    let single = parts.len() == 1;
    parts.into_iter().map(|part| if single { part } else { wrap(part) }).reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    })
}

pub fn without_parentheses(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// Whether an expression is a column or a constant: free to compute again.
pub fn is_trivial(expr: &Expr) -> bool {
    bare(expr).is_some() || marked(expr).is_some() || matches!(expr, Expr::Value(_))
}
