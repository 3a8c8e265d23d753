//! ORDER BY, LIMIT and OFFSET.

use datafusion_sql::sqlparser::ast::{Expr, LimitClause, OrderByKind, Query, Spanned, Value, ValueWithSpan};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Operator, Sort, SortKey};

use crate::nodes::NodeSpans;
use crate::planner::Planner;
use crate::query::{Item, Planned, Refused, names_of};
use crate::relation::{Output, Relation, Scope, unique};
use crate::resolve::without_parentheses;

/// A part of ORDER BY, over the node's columns.
#[derive(Clone, Debug)]
pub struct SortItem {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: Option<bool>,
    pub span: Span,
}

impl Planner<'_> {
    /// ORDER BY: a position or a name of the SELECT list, else an expression over the FROM clause.
    pub fn order(&mut self, query: &Query, items: &[Item], scope: Option<&Scope>) -> Planned<Vec<SortItem>> {
        let Some(order) = &query.order_by else { return Ok(Vec::new()) };
        let OrderByKind::Expressions(exprs) = &order.kind else {
            return Err(self.unsupported("ORDER BY ALL", "name the columns", order.span()));
        };
        let outputs: Vec<Output> = items
            .iter()
            .map(|i| Output {
                name: i.name.clone(),
                expr: i.expr.clone(),
                data_type: graph::DataType::Boolean,
                nullable: true,
                span: i.span,
            })
            .collect();
        let results = names_of(outputs, query.span());
        let mut sort = Vec::new();
        let mut failed = false;
        for part in exprs {
            let span = part.expr.span();
            if part.with_fill.is_some() || order.interpolate.is_some() {
                return Err(self.unsupported("WITH FILL", "remove it", span));
            }
            let resolved = match without_parentheses(&part.expr) {
                Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => {
                    self.ordinal(text, items.len(), "ORDER BY", span).ok().map(|at| items[at].expr.clone())
                }
                Expr::Identifier(name) if results.names("ORDER BY", true).output(name).is_some() => {
                    results.names("ORDER BY", true).output(name).map(|at| items[at].expr.clone())
                }
                expr => match scope {
                    None => results.names("ORDER BY", false).resolve(expr, &mut self.problems),
                    Some(scope) => {
                        let mut found = Vec::new();
                        let resolved = scope.names("ORDER BY", true).resolve(expr, &mut found);
                        // `ORDER BY total / n` with names of the SELECT list.
                        let resolved =
                            resolved.or_else(|| results.names("ORDER BY", false).resolve(expr, &mut Vec::new()));
                        if resolved.is_none() {
                            self.problems.extend(found);
                        }
                        resolved
                    }
                },
            };
            let descending = part.options.asc == Some(false);
            match resolved {
                Some(expr) => sort.push(SortItem { expr, descending, nulls_first: part.options.nulls_first, span }),
                None => failed = true,
            }
        }
        if failed { Err(Refused) } else { Ok(sort) }
    }

    /// LIMIT (or FETCH), and OFFSET.
    pub fn limits(&mut self, query: &Query) -> Planned<(Option<u64>, u64)> {
        let mut limit = None;
        let mut offset = 0;
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit: count, offset: skip, limit_by }) => {
                if !limit_by.is_empty() {
                    return Err(self.unsupported("LIMIT BY", "top-n is not there yet", query.span()));
                }
                limit = count.as_ref().map(|count| self.count(count, "LIMIT")).transpose()?;
                offset = skip.as_ref().map(|skip| self.count(&skip.value, "OFFSET")).transpose()?.unwrap_or(0);
            }
            Some(LimitClause::OffsetCommaLimit { offset: skip, limit: count }) => {
                limit = Some(self.count(count, "LIMIT")?);
                offset = self.count(skip, "OFFSET")?;
            }
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent || limit.is_some() {
                return Err(self.unsupported("this form of FETCH", "write LIMIT n", query.span()));
            }
            limit = match &fetch.quantity {
                Some(count) => Some(self.count(count, "FETCH")?),
                None => Some(1),
            };
        }
        Ok((limit, offset))
    }

    fn count(&mut self, expr: &Expr, clause: &str) -> Planned<u64> {
        match without_parentheses(expr) {
            Expr::Value(ValueWithSpan { value: Value::Number(text, _), span }) => match text.parse() {
                Ok(count) => Ok(count),
                Err(_) => Err(self.problem(
                    "invalid_limit",
                    format!("{clause} {text} is no whole number"),
                    "write a whole number",
                    *span,
                )),
            },
            other => {
                let message = format!("{clause} needs a whole number, not {other}");
                Err(self.problem("invalid_limit", message, "write the number", expr.span()))
            }
        }
    }

    /// ORDER BY and LIMIT: what is sorted by becomes a column, and leaves again if it is no column of the result.
    pub fn sorted(
        &mut self,
        relation: Relation,
        mut order: Vec<SortItem>,
        limit: Option<u64>,
        offset: u64,
        query: &Query,
    ) -> Planned<Relation> {
        let mut exprs: Vec<&mut Expr> = order.iter_mut().map(|item| &mut item.expr).collect();
        let mut relation = self.assigned_with(relation, &mut exprs)?;
        let span = query.order_by.as_ref().map_or(relation.span, Spanned::span);
        let schema = self.nodes.schema(relation.node).clone();
        let visible = relation.outputs.len();
        let mut names = Vec::new();
        for item in &order {
            if let Some(output) = relation.outputs.iter().find(|output| output.expr == item.expr) {
                names.push(output.name.clone());
                continue;
            }
            let (data_type, nullable) = self.typed(&item.expr, &schema, item.span)?;
            let name = unique("sort_key", |name| relation.outputs.iter().any(|output| output.name == name));
            relation.outputs.push(Output {
                name: name.clone(),
                expr: item.expr.clone(),
                data_type,
                nullable,
                span: item.span,
            });
            names.push(name);
        }
        // The order of the outputs is the query's, and no column stands there twice: a node can have them as they are.
        let mut relation = self.projected(relation, false);
        let mut spans = NodeSpans::new(span);
        let by = names.iter().zip(&order).enumerate().map(|(at, (name, item))| {
            spans.parts.push((format!("/by/{at}"), item.span));
            SortKey {
                expr: crate::relation::ident(name, Span::empty()).to_string(),
                descending: item.descending,
                nulls_first: item.nulls_first,
            }
        });
        let by = by.collect();
        let schema = self.nodes.schema(relation.node).clone();
        relation.node = self.nodes.add(Operator::Sort(Sort { by, limit, offset }), vec![relation.node], schema, spans);
        relation.outputs.truncate(visible);
        Ok(relation)
    }
}
