//! Arithmetic and comparison: how the two sides take one type, and the kernels.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::{cmp, numeric};
use arrow::datatypes::{ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, Result};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::decimal;
use crate::error::{ExprError, fault};
use crate::physical::Arg;
use crate::temporal;
use crate::types::{Ty, as_decimal, common_type};

/// `a + b` and the like. Integers take the wider type and fail on overflow; decimals as Flink derives them; else DOUBLE or FLOAT.
pub(crate) fn arithmetic(binder: &mut Binder, left: Bound, op: &BinaryOperator, right: Bound) -> Bind {
    let span = left.span.union(&right.span);
    if left.ty.is_interval() || right.ty.is_interval() || is_time(&left.ty) || is_time(&right.ty) {
        return temporal::arithmetic(binder, left, op, right).map_err(|error| error.at(span));
    }
    let (left, right) = match (&left.ty, &right.ty) {
        (Ty::Null, Ty::Null) => return Ok(left),
        (Ty::Null, Ty::Sql(t)) => (binder.coerce(left, &t.clone(), "arithmetic")?, right),
        (Ty::Sql(t), Ty::Null) => {
            let t = t.clone();
            (left, binder.coerce(right, &t, "arithmetic")?)
        }
        _ => (left, right),
    };
    let (Ty::Sql(a), Ty::Sql(b)) = (left.ty.clone(), right.ty.clone()) else { return Err(mismatch(&left, op, &right)) };
    if !a.is_numeric() || !b.is_numeric() {
        return Err(mismatch(&left, op, &right));
    }
    let Some(common) = common_type(&a, &b) else { return Err(mismatch(&left, op, &right)) };
    match &common {
        DataType::Decimal(..) => decimal_arithmetic(binder, left, op, right, (&a, &b)),
        t if t.is_integer() => {
            let (left, right) =
                (binder.coerce(left, &common, "arithmetic")?, binder.coerce(right, &common, "arithmetic")?);
            let (nullable, wrap, op, ty) =
                (left.nullable || right.nullable, binder.env.overflow_wrap, op.clone(), common.clone());
            let fallible = match op {
                BinaryOperator::Divide | BinaryOperator::Modulo => right.integer().is_none_or(|by| by == 0 || by == -1),
                _ => !wrap,
            };
            let remainder = op == BinaryOperator::Modulo;
            let kernel = kernel(move |args, _| integers(&op, &args[0], &args[1], wrap, &ty));
            let result = binder.call_with(
                "arithmetic",
                vec![left, right],
                Ty::Sql(common.clone()),
                nullable,
                fallible,
                kernel,
            )?;
            // A remainder is smaller than the divisor, whose type it takes.
            if remainder && b != common { binder.cast(result, &b, crate::cast::Mode::Strict) } else { Ok(result) }
        }
        _ => {
            let (left, right) =
                (binder.coerce(left, &common, "arithmetic")?, binder.coerce(right, &common, "arithmetic")?);
            let (nullable, op) = (left.nullable || right.nullable, op.clone());
            let kernel = kernel(move |args, _| {
                Ok(match op {
                    BinaryOperator::Plus => numeric::add(&args[0], &args[1])?,
                    BinaryOperator::Minus => numeric::sub(&args[0], &args[1])?,
                    BinaryOperator::Multiply => numeric::mul(&args[0], &args[1])?,
                    BinaryOperator::Divide => numeric::div(&args[0], &args[1])?,
                    _ => numeric::rem(&args[0], &args[1])?,
                })
            });
            binder.call_with("arithmetic", vec![left, right], Ty::Sql(common), nullable, false, kernel)
        }
    }
}

fn is_time(ty: &Ty) -> bool {
    matches!(ty, Ty::Sql(DataType::Date | DataType::Time | DataType::Timestamp(_) | DataType::TimestampLtz(_)))
}

pub(crate) fn mismatch(left: &Bound, op: &BinaryOperator, right: &Bound) -> ExprError {
    let error = ExprError::new("type_mismatch", format!("{op} does not take {} and {}", left.ty, right.ty));
    let text = matches!(left.ty, Ty::Sql(DataType::String)) || matches!(right.ty, Ty::Sql(DataType::String));
    let hint = match op {
        BinaryOperator::Plus if text => "write a || b to join texts, or CAST(text AS BIGINT) to calculate",
        _ if text => "write CAST(text AS ...) around the text",
        _ => "write CAST(... AS ...) around one of them",
    };
    error.hint(hint).at(left.span.union(&right.span))
}

fn integers(op: &BinaryOperator, left: &Arg, right: &Arg, wrap: bool, ty: &DataType) -> Result<ArrayRef> {
    let result = match (op, wrap) {
        (BinaryOperator::Plus, false) => numeric::add(left, right),
        (BinaryOperator::Plus, true) => numeric::add_wrapping(left, right),
        (BinaryOperator::Minus, false) => numeric::sub(left, right),
        (BinaryOperator::Minus, true) => numeric::sub_wrapping(left, right),
        (BinaryOperator::Multiply, false) => numeric::mul(left, right),
        (BinaryOperator::Multiply, true) => numeric::mul_wrapping(left, right),
        (BinaryOperator::Divide, false) => numeric::div(left, right),
        (BinaryOperator::Divide, true) => {
            return Ok(match ty {
                DataType::TinyInt => divide_wrapping::<Int8Type>(left, right, i8::wrapping_div)?,
                DataType::SmallInt => divide_wrapping::<Int16Type>(left, right, i16::wrapping_div)?,
                DataType::Int => divide_wrapping::<Int32Type>(left, right, i32::wrapping_div)?,
                _ => divide_wrapping::<Int64Type>(left, right, i64::wrapping_div)?,
            });
        }
        _ => numeric::rem(left, right),
    };
    result.map_err(|error| match error {
        ArrowError::ArithmeticOverflow(message) => {
            fault(format!("{ty} overflow: {}", message.trim_start_matches("Overflow happened on: ")))
        }
        other => DataFusionError::from(other),
    })
}

fn divide_wrapping<T: ArrowPrimitiveType>(
    left: &Arg,
    right: &Arg,
    divide: impl Fn(T::Native, T::Native) -> T::Native,
) -> Result<ArrayRef>
where
    T::Native: Default + PartialEq,
{
    let (a, b) = (left.array.as_primitive::<T>(), right.array.as_primitive::<T>());
    let rows = if left.constant { b.len() } else { a.len() };
    let mut values = Vec::with_capacity(rows);
    for row in 0..rows {
        let (i, j) = (left.at(row), right.at(row));
        let known = a.is_valid(i) && b.is_valid(j);
        if known && b.value(j) == T::Native::default() {
            return Err(ArrowError::DivideByZero.into());
        }
        values.push(known.then(|| divide(a.value(i), b.value(j))));
    }
    Ok(Arc::new(PrimitiveArray::<T>::from_iter(values)))
}

fn decimal_arithmetic(
    binder: &mut Binder,
    left: Bound,
    op: &BinaryOperator,
    right: Bound,
    (a, b): (&DataType, &DataType),
) -> Bind {
    let (Some((p1, s1)), Some((p2, s2))) = (as_decimal(a), as_decimal(b)) else {
        return Err(mismatch(&left, op, &right));
    };
    let left = binder.coerce(left, &DataType::Decimal(p1, s1), "arithmetic")?;
    let right = binder.coerce(right, &DataType::Decimal(p2, s2), "arithmetic")?;
    let nullable = left.nullable || right.nullable;
    let operation = match op {
        BinaryOperator::Plus => decimal::Operation::Add,
        BinaryOperator::Minus => decimal::Operation::Subtract,
        BinaryOperator::Multiply => decimal::Operation::Multiply,
        BinaryOperator::Divide => decimal::Operation::Divide,
        _ => decimal::Operation::Remainder,
    };
    let (precision, scale) = decimal::result_type(operation, (p1, s1), (p2, s2));
    let fallible = match operation {
        decimal::Operation::Multiply => i32::from(p1) + i32::from(p2) > 38,
        decimal::Operation::Add | decimal::Operation::Subtract => precision == 38,
        _ => true,
    };
    let kernel =
        kernel(move |args, rows| decimal::compute(operation, &args[0], &args[1], (s1, s2), (precision, scale), rows));
    binder.call_with(
        "arithmetic",
        vec![left, right],
        Ty::Sql(DataType::Decimal(precision, scale)),
        nullable,
        fallible,
        kernel,
    )
}

/// `-a`.
pub(crate) fn negate(binder: &mut Binder, bound: Bound) -> Bind {
    match &bound.ty {
        Ty::Null => Ok(bound),
        Ty::Sql(t) if t.is_numeric() => {
            let (ty, nullable, wrap, name) = (bound.ty.clone(), bound.nullable, binder.env.overflow_wrap, t.clone());
            let fallible = t.is_integer() && !wrap;
            let kernel = kernel(move |args, _| {
                let result = if wrap { numeric::neg_wrapping(&args[0].array) } else { numeric::neg(&args[0].array) };
                result.map_err(|error| match error {
                    ArrowError::ArithmeticOverflow(_) => {
                        fault(format!("{name} overflow: the smallest value has no positive counterpart"))
                    }
                    other => other.into(),
                })
            });
            binder.call_with("-", vec![bound], ty, nullable, fallible, kernel)
        }
        ty if ty.is_interval() => {
            let (ty, nullable) = (bound.ty.clone(), bound.nullable);
            binder.call_with("-", vec![bound], ty, nullable, true, kernel(|args, _| Ok(numeric::neg(&args[0].array)?)))
        }
        other => Err(ExprError::new("type_mismatch", format!("- stands before a number, not {other}")).at(bound.span)),
    }
}

/// `a = b` and the like: NULL if either is.
pub(crate) fn comparison(binder: &mut Binder, left: Bound, op: &BinaryOperator, right: Bound) -> Bind {
    let (left, right) = comparable(binder, left, right, &op.to_string())?;
    if left.ty == Ty::Null {
        return Ok(Bound::constant(
            datafusion_common::ScalarValue::Boolean(None),
            Ty::Sql(DataType::Boolean),
            left.span,
        ));
    }
    let (nullable, op) = (left.nullable || right.nullable, op.clone());
    let float = matches!(left.ty, Ty::Sql(DataType::Float | DataType::Double));
    let kernel = kernel(move |args, _| Ok(Arc::new(compare_arrays(&op, &args[0], &args[1], float)?) as ArrayRef));
    binder.call_with("compare", vec![left, right], Ty::Sql(DataType::Boolean), nullable, false, kernel)
}

/// Both sides in one type that has an order, or an error.
pub(crate) fn comparable(
    binder: &mut Binder,
    left: Bound,
    right: Bound,
    what: &str,
) -> Result<(Bound, Bound), ExprError> {
    let span = left.span.union(&right.span);
    let ty = common(&left.ty, &right, &left, what).map_err(|error| error.at(span))?;
    match ty {
        Ty::Sql(DataType::Array(_) | DataType::Map(..) | DataType::Row(_)) => {
            let error = ExprError::new("type_mismatch", format!("{what} does not compare {}", left.ty)).at(span);
            Err(error.hint("compare their fields or elements"))
        }
        Ty::Sql(t) => {
            // A constant that fits the other side's narrower type is compared in it, so that the column is not cast.
            let t = narrow(&left, &right, &t).unwrap_or(t);
            Ok((binder.coerce(left, &t, what)?, binder.coerce(right, &t, what)?))
        }
        _ => Ok((left, right)),
    }
}

/// The type of a non-constant integer side, if the constant other side has a value of that type.
fn narrow(left: &Bound, right: &Bound, common: &DataType) -> Option<DataType> {
    let (column, constant) = if left.literal.is_none() { (left, right) } else { (right, left) };
    let (value, t) = (constant.integer()?, column.ty.sql()?);
    let fits = match t {
        DataType::TinyInt => i8::try_from(value).is_ok(),
        DataType::SmallInt => i16::try_from(value).is_ok(),
        DataType::Int => i32::try_from(value).is_ok(),
        _ => false,
    };
    (fits && common.is_integer() && column.literal.is_none()).then(|| t.clone())
}

/// The type in which `so_far` and `part` are compared. A constant text takes the type of a time beside it.
pub(crate) fn common(so_far: &Ty, part: &Bound, first: &Bound, what: &str) -> Result<Ty, ExprError> {
    let time = |t: &DataType| t.is_timestamp() || matches!(t, DataType::Date | DataType::Time);
    match (so_far, &part.ty) {
        (_, Ty::Null) => Ok(so_far.clone()),
        (Ty::Null, other) => Ok(other.clone()),
        (Ty::Sql(t), Ty::Sql(DataType::String)) if time(t) && part.literal.is_some() => Ok(so_far.clone()),
        (Ty::Sql(DataType::String), Ty::Sql(t)) if time(t) && first.literal.is_some() => Ok(part.ty.clone()),
        (Ty::Sql(a), Ty::Sql(b)) if common_type(a, b).is_some() => Ok(common_type(a, b).map_or(Ty::Null, Ty::Sql)),
        (a, b) if a == b => Ok(a.clone()),
        (a, b) => {
            let error = ExprError::new("type_mismatch", format!("{what} does not compare {a} with {b}")).at(part.span);
            Err(error.hint(match (a, b) {
                (Ty::Sql(a), Ty::Sql(DataType::String)) => format!("write CAST(... AS {a}) around the text"),
                (Ty::Sql(DataType::String), Ty::Sql(b)) => format!("write CAST(... AS {b}) around the text"),
                _ => "write CAST(... AS ...) around one of them".to_string(),
            }))
        }
    }
}

/// Compares two arrays of one type. Floating-point numbers compare as IEEE 754 says: -0.0 = 0.0, and NaN equals nothing.
pub(crate) fn compare_arrays(op: &BinaryOperator, left: &Arg, right: &Arg, float: bool) -> Result<BooleanArray> {
    if float {
        return match left.array.as_primitive_opt::<Float64Type>() {
            Some(_) => Ok(compare_floats::<Float64Type>(op, left, right)),
            None => Ok(compare_floats::<Float32Type>(op, left, right)),
        };
    }
    let (a, b): (&dyn Datum, &dyn Datum) = (left, right);
    Ok(match op {
        BinaryOperator::Eq => cmp::eq(a, b)?,
        BinaryOperator::NotEq => cmp::neq(a, b)?,
        BinaryOperator::Lt => cmp::lt(a, b)?,
        BinaryOperator::LtEq => cmp::lt_eq(a, b)?,
        BinaryOperator::Gt => cmp::gt(a, b)?,
        BinaryOperator::GtEq => cmp::gt_eq(a, b)?,
        other => return Err(fault(format!("{other} is no comparison"))),
    })
}

fn compare_floats<T: ArrowPrimitiveType>(op: &BinaryOperator, left: &Arg, right: &Arg) -> BooleanArray
where
    T::Native: PartialOrd,
{
    let (a, b) = (left.array.as_primitive::<T>(), right.array.as_primitive::<T>());
    let rows = if left.constant { b.len() } else { a.len() };
    let (x, y) = (a.values(), b.values());
    fn run<N: PartialOrd + Copy>(
        rows: usize,
        x: &[N],
        y: &[N],
        left: &Arg,
        right: &Arg,
        test: impl Fn(N, N) -> bool,
    ) -> BooleanBuffer {
        match (left.constant, right.constant) {
            (false, false) => BooleanBuffer::collect_bool(rows, |row| test(x[row], y[row])),
            (false, true) => BooleanBuffer::collect_bool(rows, |row| test(x[row], y[0])),
            (true, _) => BooleanBuffer::collect_bool(rows, |row| test(x[0], y[right.at(row)])),
        }
    }
    let values = match op {
        BinaryOperator::Eq => run(rows, x, y, left, right, |x, y| x == y),
        BinaryOperator::NotEq => run(rows, x, y, left, right, |x, y| x != y),
        BinaryOperator::Lt => run(rows, x, y, left, right, |x, y| x < y),
        BinaryOperator::LtEq => run(rows, x, y, left, right, |x, y| x <= y),
        BinaryOperator::Gt => run(rows, x, y, left, right, |x, y| x > y),
        _ => run(rows, x, y, left, right, |x, y| x >= y),
    };
    BooleanArray::new(values, nulls_of(&[left, right], rows))
}

/// Rows for which one of the arguments is null.
pub(crate) fn nulls_of(args: &[&Arg], rows: usize) -> Option<NullBuffer> {
    let mut nulls: Option<NullBuffer> = None;
    for arg in args {
        let own = match arg.constant {
            true if arg.array.is_null(0) => Some(NullBuffer::new_null(rows)),
            true => None,
            false => arg.array.logical_nulls(),
        };
        nulls = NullBuffer::union(nulls.as_ref(), own.as_ref());
    }
    nulls
}
