//! What stands in FROM: tables by name, subqueries, window functions; and what is refused there.

use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArguments, JoinOperator, ObjectName, Select, Spanned, TableAlias, TableFactor, TableWithJoins,
};

use crate::planner::Planner;
use crate::query::{Ctes, Planned, Refused};
use crate::relation::{Relation, Scope, find};
use crate::resolve::function_name;

impl Planner<'_> {
    /// A table, view, CTE or system table by its name.
    pub fn named(&mut self, name: &ObjectName, ctes: &Ctes) -> Planned<Relation> {
        if let Some(relation) = self.system_table(name) {
            return relation;
        }
        if let [part] = &name.0[..]
            && let Some(ident) = part.as_ident()
        {
            // The innermost WITH hides the others and the tables.
            let names: Vec<&str> = ctes.0.iter().map(|(name, _)| name.as_str()).collect();
            let at = match names.iter().rposition(|known| *known == ident.value) {
                Some(at) => Some(at),
                None if self.entries.contains_key(&ident.value) => None,
                None => find(&ident.value, names.iter().copied()).ok(),
            };
            if let Some(at) = at {
                return ctes.0[at].1.clone().map(|relation| Relation { span: name.span(), ..relation }).ok_or(Refused);
            }
        }
        let found = self.lookup(name)?;
        self.scan(&found, name.span())
    }

    /// The one table of a SELECT; joins are refused.
    pub fn from(&mut self, from: &[TableWithJoins], select: &Select, ctes: &Ctes) -> Planned<Scope> {
        let [only] = from else {
            return match from {
                [] => Err(self.unsupported("a SELECT without FROM", "select from a table", select.select_token.0.span)),
                [_, second, ..] => Err(self.unsupported(
                    "a join (two tables in FROM)",
                    "joins are not there yet; read one table",
                    second.span(),
                )),
                [_] => unreachable!("one table was taken above"),
            };
        };
        if let Some(join) = only.joins.first() {
            let kind = match &join.join_operator {
                JoinOperator::CrossJoin(_) => "CROSS JOIN",
                JoinOperator::LeftOuter(_) | JoinOperator::Left(_) => "LEFT JOIN",
                JoinOperator::RightOuter(_) | JoinOperator::Right(_) => "RIGHT JOIN",
                JoinOperator::FullOuter(_) => "FULL JOIN",
                _ => "JOIN",
            };
            let hint = "joins are not there yet; aggregate or UNION ALL the tables, or join them before they are read";
            return Err(self.unsupported(kind, hint, join.relation.span()));
        }
        self.factor(&only.relation, ctes)
    }

    fn factor(&mut self, factor: &TableFactor, ctes: &Ctes) -> Planned<Scope> {
        let span = factor.span();
        let (relation, alias, own) = match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                for (there, what, hint) in [
                    (version.is_some(), "FOR SYSTEM_TIME AS OF", "temporal joins are not there yet"),
                    (sample.is_some(), "TABLESAMPLE", "filter with WHERE"),
                    (*with_ordinality, "WITH ORDINALITY", "remove it"),
                    (
                        !with_hints.is_empty() || !index_hints.is_empty(),
                        "a hint",
                        "remove it; options stand in the table's WITH (...)",
                    ),
                    (!partitions.is_empty() || json_path.is_some(), "this form of a table", "name the table alone"),
                ] {
                    if there {
                        return Err(self.unsupported(what, hint, span));
                    }
                }
                match args {
                    Some(args) => (self.window_function(&name.to_string(), &args.args, span, ctes)?, alias, None),
                    None => {
                        let own = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone());
                        (self.named(name, ctes)?, alias, own)
                    }
                }
            }
            TableFactor::TableFunction { expr: Expr::Function(function), alias } => {
                let args = match &function.args {
                    FunctionArguments::List(list) => list.args.clone(),
                    _ => Vec::new(),
                };
                let span = Expr::Function(function.clone()).span();
                (self.window_function(&function_name(function), &args, span, ctes)?, alias, None)
            }
            TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
                (self.query(subquery, ctes)?, alias, None)
            }
            TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. } => {
                return Err(self.unsupported("LATERAL", "compute it in the SELECT list", span));
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                let hint = "joins are not there yet; read one table, without parentheses";
                return Err(self.unsupported("a join in parentheses", hint, table_with_joins.span()));
            }
            TableFactor::UNNEST { .. } => {
                return Err(self.unsupported("UNNEST", "compute with the array in the SELECT list", span));
            }
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
                return Err(self.unsupported("PIVOT", "write SUM(x) FILTER (WHERE k = 'a') for each column", span));
            }
            TableFactor::MatchRecognize { .. } => {
                return Err(self.unsupported("MATCH_RECOGNIZE", "aggregate over a window", span));
            }
            _ => {
                return Err(self.unsupported(
                    "this form of a table",
                    "name a table, a subquery or a window function",
                    span,
                ));
            }
        };
        match alias {
            Some(alias) => {
                Ok(Scope { relation: self.aliased(relation, alias)?, qualifier: Some(alias.name.value.clone()) })
            }
            None => Ok(Scope { relation, qualifier: own }),
        }
    }

    /// `AS t (a, b)`: the columns under other names.
    pub fn aliased(&mut self, mut relation: Relation, alias: &TableAlias) -> Planned<Relation> {
        if alias.columns.is_empty() {
            return Ok(relation);
        }
        if alias.columns.len() != relation.outputs.len() {
            let message = format!(
                "{} has {} columns, and {} names for them",
                alias.name.value,
                relation.outputs.len(),
                alias.columns.len()
            );
            return Err(self.problem("wrong_columns", message, "name every column once", alias.name.span));
        }
        for (output, name) in relation.outputs.iter_mut().zip(&alias.columns) {
            output.name = name.name.value.clone();
        }
        Ok(relation)
    }
}
