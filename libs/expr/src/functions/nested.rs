//! Arrays, maps and rows: constructors, access and size.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, MapArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{DataType as ArrowType, Int64Type};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use graph::{DataType, suggestion};

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, fault};
use crate::functions::{Function, function};
use crate::operators;
use crate::physical::Arg;
use crate::types::{Ty, arrow_type};

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["CARDINALITY"], 1..=1, "CARDINALITY(array or map)", cardinality),
    function(&["ELEMENT"], 1..=1, "ELEMENT(array)", only_element),
    function(&["ARRAY_CONTAINS"], 2..=2, "ARRAY_CONTAINS(array, value)", array_contains),
    function(&["ROW"], 1..=usize::MAX, "ROW(value, ...)", row),
    function(&["MAP_KEYS"], 1..=1, "MAP_KEYS(map)", map_keys),
    function(&["MAP_VALUES"], 1..=1, "MAP_VALUES(map)", map_values),
];

fn wanted(name: &str, what: &str, given: &Bound) -> ExprError {
    ExprError::new("type_mismatch", format!("{name} takes {what}, not {}", given.ty)).at(given.span)
}

/// `row.field`.
pub(crate) fn field(binder: &mut Binder, row: Bound, name: &str) -> Bind {
    let Ty::Sql(DataType::Row(fields)) = &row.ty else {
        let error = ExprError::new("unknown_field", format!("{} has no field {name}; only a ROW has fields", row.ty));
        return Err(error.hint("names of tables do not stand here; write the column alone"));
    };
    let exact = fields.iter().position(|(field, _)| field == name);
    let index = exact.or_else(|| fields.iter().position(|(field, _)| field.eq_ignore_ascii_case(name)));
    let Some(index) = index else {
        let names: Vec<&str> = fields.iter().map(|(field, _)| field.as_str()).collect();
        let error = ExprError::new("unknown_field", format!("the ROW has no field {name}"));
        return Err(error.hint(suggestion(name, names.iter().copied())));
    };
    let ty = Ty::Sql(fields[index].1.clone());
    let run = kernel(move |args, _| {
        let row = args[0].array.as_struct();
        let column = row.column(index);
        // A field of a null ROW is NULL, whatever stands below it.
        match row.nulls() {
            None => Ok(Arc::clone(column)),
            Some(nulls) => {
                let nulls = NullBuffer::union(Some(nulls), column.logical_nulls().as_ref());
                let data = column.to_data().into_builder().nulls(nulls).build()?;
                Ok(arrow::array::make_array(data))
            }
        }
    });
    binder.call_with("field", vec![row], ty, true, false, run)
}

/// `array[1]`, counted from 1, and `map['key']`; NULL where there is no such element.
pub(crate) fn element(binder: &mut Binder, container: Bound, index: Bound) -> Bind {
    match container.ty.clone() {
        Ty::Sql(DataType::Array(item)) => {
            if index.integer().is_some_and(|index| index < 1) {
                return Err(ExprError::new("invalid_index", "the first element of an array is [1]").at(index.span));
            }
            let index = binder.coerce(index, &DataType::BigInt, "[ ]")?;
            let run = kernel(|args, rows| {
                let list = args[0].array.as_list::<i32>();
                let index = args[1].array.as_primitive::<Int64Type>();
                let positions: UInt32Array = (0..rows)
                    .map(|row| {
                        let (at, i) = (args[0].at(row), args[1].at(row));
                        if list.is_null(at) || index.is_null(i) {
                            return None;
                        }
                        let (start, length) = (list.value_offsets()[at], list.value_length(at));
                        let index = index.value(i);
                        (index >= 1 && index <= i64::from(length)).then(|| start as u32 + index as u32 - 1)
                    })
                    .collect();
                Ok(compute::take(list.values(), &positions, None)?)
            });
            binder.call_with("[ ]", vec![container, index], Ty::Sql(*item), true, false, run)
        }
        Ty::Sql(DataType::Map(key, value)) => {
            let index = binder.coerce(index, &key, "[ ]")?;
            let float = matches!(*key, DataType::Float | DataType::Double);
            let run = kernel(move |args, rows| {
                let map = args[0].array.as_map();
                let keys = map.keys();
                let mut positions: Vec<Option<u32>> = Vec::with_capacity(rows);
                for row in 0..rows {
                    let (at, i) = (args[0].at(row), args[1].at(row));
                    if map.is_null(at) || args[1].array.is_null(i) {
                        positions.push(None);
                        continue;
                    }
                    let (start, end) = (map.value_offsets()[at] as usize, map.value_offsets()[at + 1] as usize);
                    let entries = Arg { array: keys.slice(start, end - start), constant: false };
                    let wanted = Arg { array: args[1].array.slice(i, 1), constant: true };
                    let equal = operators::compare_arrays(&BinaryOperator::Eq, &entries, &wanted, float)?;
                    positions.push((0..end - start).find(|at| equal.value(*at)).map(|at| (start + at) as u32));
                }
                Ok(compute::take(map.values(), &UInt32Array::from(positions), None)?)
            });
            binder.call_with("[ ]", vec![container, index], Ty::Sql(*value), true, false, run)
        }
        _ => Err(wanted("[ ]", "an ARRAY or a MAP", &container)),
    }
}

/// `ARRAY[a, b]`.
pub(crate) fn array(binder: &mut Binder, items: Vec<Bound>) -> Bind {
    let Ty::Sql(item) = binder.common_of(&items, "ARRAY")? else {
        return Err(ExprError::new("untyped_null", "the ARRAY has no type").hint("write ARRAY[CAST(NULL AS INT)]"));
    };
    let items = items.into_iter().map(|bound| binder.coerce(bound, &item, "ARRAY")).collect::<Result<Vec<_>, _>>()?;
    let ty = DataType::Array(Box::new(item));
    let ArrowType::List(field) = arrow_type(&ty) else { return Err(ExprError::new("internal", "an ARRAY is a list")) };
    let width = items.len();
    let run = kernel(move |args, rows| {
        let arrays: Vec<&dyn Array> = args.iter().map(|arg| arg.array.as_ref()).collect();
        let places: Vec<(usize, usize)> =
            (0..rows).flat_map(|row| args.iter().enumerate().map(move |(arg, value)| (arg, value.at(row)))).collect();
        let values = compute::interleave(&arrays, &places)?;
        let offsets = OffsetBuffer::from_repeated_length(width, rows);
        Ok(Arc::new(ListArray::try_new(Arc::clone(&field), offsets, values, None)?) as ArrayRef)
    });
    binder.call_with("ARRAY", items, Ty::Sql(ty), false, false, run)
}

/// `ROW(a, b)` and `(a, b)`: fields are named as in Flink.
pub(crate) fn row(binder: &mut Binder, items: Vec<Bound>) -> Bind {
    let mut fields = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        match &item.ty {
            Ty::Sql(t) => fields.push((format!("EXPR${at}"), t.clone())),
            other => {
                return Err(ExprError::new("untyped_null", format!("a ROW cannot hold {other}"))
                    .hint("write CAST(NULL AS INT)")
                    .at(item.span));
            }
        }
    }
    let ty = DataType::Row(fields);
    let ArrowType::Struct(fields) = arrow_type(&ty) else {
        return Err(ExprError::new("internal", "a ROW is a struct"));
    };
    let run = kernel(move |args, rows| {
        let columns = args.iter().map(|arg| arg.expanded(rows)).collect::<datafusion_common::Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, None, rows)?) as ArrayRef)
    });
    let binder_ref = binder;
    binder_ref.call_with("ROW", items, Ty::Sql(ty), false, false, run)
}

fn cardinality(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    if !matches!(args[0].ty, Ty::Sql(DataType::Array(_) | DataType::Map(..))) {
        return Err(wanted("CARDINALITY", "an ARRAY or a MAP", &args[0]));
    }
    let nullable = args[0].nullable;
    let run = kernel(|args, _| {
        let offsets = match args[0].array.data_type() {
            ArrowType::Map(..) => args[0].array.as_map().offsets().clone(),
            _ => args[0].array.as_list::<i32>().offsets().clone(),
        };
        let lengths: Vec<i32> = offsets.lengths().map(|length| length as i32).collect();
        Ok(Arc::new(Int32Array::new(lengths.into(), args[0].array.nulls().cloned())) as ArrayRef)
    });
    binder.call_with("CARDINALITY", args, Ty::Sql(DataType::Int), nullable, false, run)
}

fn only_element(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let Ty::Sql(DataType::Array(item)) = args[0].ty.clone() else {
        return Err(wanted("ELEMENT", "an ARRAY", &args[0]));
    };
    let run = kernel(|args, rows| {
        let list = args[0].array.as_list::<i32>();
        let mut positions: Vec<Option<u32>> = Vec::with_capacity(rows);
        for row in 0..rows {
            let at = args[0].at(row);
            positions.push(match list.is_null(at) {
                true => None,
                false => match list.value_length(at) {
                    0 => None,
                    1 => Some(list.value_offsets()[at] as u32),
                    more => return Err(fault(format!("ELEMENT wants one element, and there are {more}"))),
                },
            });
        }
        Ok(compute::take(list.values(), &UInt32Array::from(positions), None)?)
    });
    binder.call_with("ELEMENT", vec![args.remove(0)], Ty::Sql(*item), true, true, run)
}

fn array_contains(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let Ty::Sql(DataType::Array(item)) = args[0].ty.clone() else {
        return Err(wanted("ARRAY_CONTAINS", "an ARRAY", &args[0]));
    };
    if matches!(*item, DataType::Array(_) | DataType::Map(..) | DataType::Row(_)) {
        return Err(wanted("ARRAY_CONTAINS", "an ARRAY of simple values", &args[0]));
    }
    let needle = args.remove(1);
    let needle = binder.coerce(needle, &item, "ARRAY_CONTAINS")?;
    let list = args.remove(0);
    let nullable = list.nullable;
    let float = matches!(*item, DataType::Float | DataType::Double);
    let run = kernel(move |args, rows| {
        let list = args[0].array.as_list::<i32>();
        let mut out: Vec<Option<bool>> = Vec::with_capacity(rows);
        for row in 0..rows {
            let (at, i) = (args[0].at(row), args[1].at(row));
            if list.is_null(at) {
                out.push(None);
                continue;
            }
            let items = list.value(at);
            // A NULL is found as NULL, as in Flink.
            let found = if args[1].array.is_null(i) {
                items.null_count() > 0
            } else {
                let wanted = Arg { array: args[1].array.slice(i, 1), constant: true };
                let equal = operators::compare_arrays(
                    &BinaryOperator::Eq,
                    &Arg { array: items, constant: false },
                    &wanted,
                    float,
                )?;
                equal.true_count() > 0
            };
            out.push(Some(found));
        }
        Ok(Arc::new(arrow::array::BooleanArray::from(out)) as ArrayRef)
    });
    binder.call_with("ARRAY_CONTAINS", vec![list, needle], Ty::Sql(DataType::Boolean), nullable, false, run)
}

fn map_part(binder: &mut Binder, args: Vec<Bound>, name: &'static str, keys: bool) -> Bind {
    let Ty::Sql(DataType::Map(key, value)) = args[0].ty.clone() else { return Err(wanted(name, "a MAP", &args[0])) };
    let ty = DataType::Array(if keys { key } else { value });
    let ArrowType::List(field) = arrow_type(&ty) else { return Err(ExprError::new("internal", "an ARRAY is a list")) };
    let nullable = args[0].nullable;
    let run = kernel(move |args, _| {
        let map: &MapArray = args[0].array.as_map();
        let items = if keys { map.keys() } else { map.values() };
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(&field),
            map.offsets().clone(),
            Arc::clone(items),
            map.nulls().cloned(),
        )?) as ArrayRef)
    });
    binder.call_with(name, args, Ty::Sql(ty), nullable, false, run)
}

fn map_keys(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    map_part(binder, args, "MAP_KEYS", true)
}

fn map_values(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    map_part(binder, args, "MAP_VALUES", false)
}
