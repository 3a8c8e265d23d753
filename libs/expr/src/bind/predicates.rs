//! Predicates and choices: AND, OR, NOT and IS with three truth values, IN, and CASE.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{CaseExpr, InListExpr, IsNotNullExpr, IsNullExpr, NotExpr};
use datafusion_sql::sqlparser::ast::{BinaryOperator, CaseWhen, Expr};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::DataType;

use super::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, plain_message};
use crate::limits::{TREE_DEPTH_MAX, too_complex};
use crate::operators;
use crate::physical::Logical;
use crate::types::Ty;

impl Binder<'_> {
    pub fn not(&mut self, bound: Bound) -> Bind {
        let bound = self.boolean(bound, "NOT")?;
        let node = Arc::new(NotExpr::new(Arc::clone(&bound.node)));
        self.finish(node, vec![bound], Ty::Sql(DataType::Boolean), |nullable| nullable, false)
    }

    /// AND or OR; terms that are themselves of the same kind become part of it.
    pub fn logical(&mut self, and: bool, terms: Vec<Bound>) -> Bind {
        let word = if and { "AND" } else { "OR" };
        let terms = terms.into_iter().map(|term| self.boolean(term, word)).collect::<Result<Vec<_>, _>>()?;
        let mut flat: Vec<(Arc<dyn PhysicalExpr>, bool)> = Vec::new();
        let mut depth = 0;
        for term in &terms {
            match term.node.downcast_ref::<Logical>() {
                Some(inner) if inner.and == and => {
                    flat.extend(inner.terms.iter().cloned());
                    depth = depth.max(term.depth - 1);
                }
                _ => {
                    flat.push((Arc::clone(&term.node), term.fallible));
                    depth = depth.max(term.depth);
                }
            }
        }
        let node = Arc::new(Logical { and, terms: flat, nullable: terms.iter().any(|term| term.nullable) });
        let mut bound = self.finish(node, terms, Ty::Sql(DataType::Boolean), |nullable| nullable, false)?;
        bound.depth = depth + 1;
        Ok(bound)
    }

    /// A predicate, or an error that says where one was expected.
    pub fn boolean(&mut self, bound: Bound, place: &str) -> Bind {
        match &bound.ty {
            Ty::Sql(DataType::Boolean) => Ok(bound),
            Ty::Null => self.coerce(bound, &DataType::Boolean, place),
            other => {
                let error =
                    ExprError::new("type_mismatch", format!("{place} wants BOOLEAN, not {other}")).at(bound.span);
                Err(error.hint("write a comparison, such as x <> 0"))
            }
        }
    }

    pub(super) fn is_null(&mut self, inner: &Expr, negated: bool) -> Bind {
        let bound = self.bind(inner)?;
        if bound.ty == Ty::Null {
            return Ok(Bound::constant(ScalarValue::Boolean(Some(!negated)), Ty::Sql(DataType::Boolean), bound.span));
        }
        let node: Arc<dyn PhysicalExpr> = match negated {
            true => Arc::new(IsNotNullExpr::new(Arc::clone(&bound.node))),
            false => Arc::new(IsNullExpr::new(Arc::clone(&bound.node))),
        };
        self.finish(node, vec![bound], Ty::Sql(DataType::Boolean), |_| false, false)
    }

    /// IS [NOT] TRUE, FALSE or (None) UNKNOWN: never null.
    pub(super) fn is_truth(&mut self, inner: &Expr, value: Option<bool>, negated: bool) -> Bind {
        let bound = self.bind(inner)?;
        let bound = self.boolean(bound, "IS TRUE, FALSE and UNKNOWN")?;
        let kernel = kernel(move |args, _| {
            let array = args[0].array.as_boolean();
            let present = array.nulls().map(|nulls| nulls.inner().clone());
            let matches = match (value, present) {
                (Some(true), Some(present)) => array.values() & &present,
                (Some(true), None) => array.values().clone(),
                (Some(false), Some(present)) => &!array.values() & &present,
                (Some(false), None) => !array.values(),
                (None, Some(present)) => !&present,
                (None, None) => BooleanBuffer::new_unset(array.len()),
            };
            let matches = if negated { !&matches } else { matches };
            Ok(Arc::new(BooleanArray::new(matches, None)) as ArrayRef)
        });
        self.call_with("IS", vec![bound], Ty::Sql(DataType::Boolean), false, false, kernel)
    }

    pub(super) fn distinct(&mut self, left: &Expr, right: &Expr, negated: bool) -> Bind {
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        let (left, right) = operators::comparable(self, left, right, "IS DISTINCT FROM")?;
        let float = matches!(left.ty, Ty::Sql(DataType::Float | DataType::Double));
        let kernel = kernel(move |args, rows| {
            let equal = operators::compare_arrays(&BinaryOperator::Eq, &args[0], &args[1], float)?;
            let (a, b) = (&args[0], &args[1]);
            let same = (0..rows).map(|row| match (a.array.is_null(a.at(row)), b.array.is_null(b.at(row))) {
                (false, false) => equal.value(if equal.len() == 1 { 0 } else { row }),
                (a, b) => a == b,
            });
            let same: BooleanBuffer = same.map(|same| same == negated).collect();
            Ok(Arc::new(BooleanArray::new(same, None)) as ArrayRef)
        });
        self.call_with("IS DISTINCT FROM", vec![left, right], Ty::Sql(DataType::Boolean), false, false, kernel)
    }

    pub(super) fn in_list(&mut self, expr: &Expr, list: &[Expr], negated: bool) -> Bind {
        let value = self.bind(expr)?;
        if list.is_empty() {
            return Err(ExprError::new("syntax_error", "the list of IN is empty"));
        }
        let mut items = Vec::with_capacity(list.len());
        for item in list {
            items.push(self.bind(item)?);
        }
        // All sides take one type: that of the value and every item together.
        let mut ty = value.ty.clone();
        for item in &items {
            ty = operators::common(&ty, item, &value, "IN")?;
        }
        let Ty::Sql(ty) = ty else {
            return Ok(Bound::constant(ScalarValue::Boolean(None), Ty::Sql(DataType::Boolean), value.span));
        };
        let value = self.coerce(value, &ty, "IN")?;
        let items = items.into_iter().map(|item| self.coerce(item, &ty, "IN")).collect::<Result<Vec<_>, _>>()?;
        let float = matches!(ty, DataType::Float | DataType::Double);
        let constant = items.iter().all(|item| item.literal.is_some());
        let hashed = constant && !float && !matches!(ty, DataType::Array(_) | DataType::Map(..) | DataType::Row(_));
        if !hashed {
            if items.len() > TREE_DEPTH_MAX as usize {
                return Err(too_complex(
                    format!("a list of {} values that are not constants is too long", items.len()),
                    value.span,
                ));
            }
            let mut terms = Vec::with_capacity(items.len());
            for item in items {
                terms.push(operators::comparison(self, value.clone(), &BinaryOperator::Eq, item)?);
            }
            let any = if terms.len() == 1 { terms.remove(0) } else { self.logical(false, terms)? };
            return if negated { self.not(any) } else { Ok(any) };
        }
        let nullable = value.nullable || items.iter().any(|item| item.nullable);
        let values = items.iter().filter_map(|item| item.literal.clone());
        let array =
            ScalarValue::iter_to_array(values).map_err(|error| ExprError::new("internal", plain_message(&error)))?;
        let node = InListExpr::try_new_from_array(Arc::clone(&value.node), array, negated, &self.arrow);
        let node = node.map_err(|error| ExprError::new("type_mismatch", plain_message(&error)))?;
        self.finish(Arc::new(node), vec![value], Ty::Sql(DataType::Boolean), |_| nullable, false)
    }

    pub(super) fn case(&mut self, operand: Option<&Expr>, conditions: &[CaseWhen], else_result: Option<&Expr>) -> Bind {
        let operand = operand.map(|operand| self.bind(operand)).transpose()?;
        let mut conditions_bound = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for (at, branch) in conditions.iter().enumerate() {
            let condition =
                if at == 0 { self.bind(&branch.condition)? } else { self.conditionally(&branch.condition)? };
            conditions_bound.push(condition);
            results.push(self.conditionally(&branch.result)?);
        }
        if let Some(result) = else_result {
            results.push(self.conditionally(result)?);
        }
        let mut whens = Vec::with_capacity(conditions.len());
        for condition in conditions_bound {
            whens.push(match &operand {
                Some(operand) => operators::comparison(self, operand.clone(), &BinaryOperator::Eq, condition)?,
                None => self.boolean(condition, "WHEN")?,
            });
        }
        self.choose(whens, results, "CASE")
    }

    /// The result of the first condition that is true; one more result than conditions is for ELSE.
    pub fn choose(&mut self, whens: Vec<Bound>, results: Vec<Bound>, what: &str) -> Bind {
        let ty = self.common_of(&results, what)?;
        let Ty::Sql(ty) = ty else {
            let span = results.first().map_or(Span::empty(), |result| result.span);
            return Ok(Bound::constant(ScalarValue::Null, Ty::Null, span));
        };
        self.conditional += 1;
        let results: Result<Vec<Bound>, ExprError> =
            results.into_iter().map(|result| self.coerce(result, &ty, what)).collect();
        self.conditional -= 1;
        let mut results = results?;
        // Conditions that are constant decide now: what is never reached is not computed.
        let mut kept: Vec<Bound> = Vec::new();
        let mut kept_results: Vec<Bound> = Vec::new();
        let mut otherwise = if results.len() > whens.len() { results.pop() } else { None };
        for (when, result) in whens.into_iter().zip(results) {
            match &when.literal {
                Some(ScalarValue::Boolean(Some(true))) => {
                    otherwise = Some(result);
                    break;
                }
                Some(_) => {}
                None => {
                    kept.push(when);
                    kept_results.push(result);
                }
            }
        }
        if kept.is_empty() {
            return match otherwise {
                Some(result) => Ok(result),
                None => self.null(&ty),
            };
        }
        let nullable = otherwise.as_ref().is_none_or(|result| result.nullable)
            || kept_results.iter().any(|result| result.nullable);
        let pairs = kept
            .iter()
            .zip(&kept_results)
            .map(|(when, result)| (Arc::clone(&when.node), Arc::clone(&result.node)))
            .collect();
        let node = CaseExpr::try_new(None, pairs, otherwise.as_ref().map(|result| Arc::clone(&result.node)));
        let node = node.map_err(|error| ExprError::new("internal", plain_message(&error)))?;
        let parts: Vec<Bound> = kept.into_iter().chain(kept_results).chain(otherwise).collect();
        self.finish(Arc::new(node), parts, Ty::Sql(ty), |_| nullable, false)
    }
}
