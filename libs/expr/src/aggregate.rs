//! Types of aggregates, as Flink derives them.

use graph::{AggregateCall, AggregateFunction, DataType};

use crate::error::ExprError;

/// The type of an aggregate's result and whether it can be NULL; `arg` is the type of its argument, if it has one.
///
/// SUM keeps integers and floats and widens DECIMAL(p, s) to DECIMAL(38, s); AVG keeps integers (cut toward zero), DECIMAL(p, s) gives
/// DECIMAL(38, max(6, s)); STDDEV and VAR of integers are integers, of decimals DECIMAL(38, max(6, s)); all as Flink 2.3.
/// COUNT is never NULL; the others are NULL for no values.
pub fn aggregate_type(call: &AggregateCall, arg: Option<&DataType>) -> Result<(DataType, bool), ExprError> {
    use AggregateFunction::*;
    let name = call.function.name().to_uppercase();
    let wrong = |message: String, hint: &str| Err(ExprError::new("wrong_arguments", message).hint(hint));
    if call.distinct && !matches!(call.function, Count | Sum | Avg | Min | Max) {
        return wrong(format!("{name} takes no DISTINCT"), "DISTINCT is for count, sum and avg");
    }
    if call.fraction.is_some() && call.function != ApproxPercentile {
        return wrong(format!("{name} has no fraction"), "only approx_percentile has one");
    }
    let Some(arg) = arg else {
        return match call.function {
            Count if !call.distinct => Ok((DataType::BigInt, false)),
            _ => wrong(format!("{name} needs an argument"), "only COUNT(*) has none"),
        };
    };
    let needs_number = || {
        let hint = if *arg == DataType::String {
            "write CAST(text AS DOUBLE)"
        } else {
            "there is count, min, max, first_value, last_value for other types"
        };
        wrong(format!("{name} takes a number, not {arg}"), hint)
    };
    let nested = matches!(arg, DataType::Array(_) | DataType::Map(..) | DataType::Row(_));
    match call.function {
        Count if call.distinct && nested => {
            wrong(format!("COUNT(DISTINCT ...) does not take {arg}"), "count one of its fields")
        }
        Count => Ok((DataType::BigInt, false)),
        Sum => match arg {
            DataType::Decimal(_, scale) => Ok((DataType::Decimal(38, *scale), true)),
            arg if arg.is_numeric() => Ok((arg.clone(), true)),
            _ => needs_number(),
        },
        Avg | StddevPop | StddevSamp | VarPop | VarSamp => match arg {
            DataType::Decimal(_, scale) => Ok((DataType::Decimal(38, (*scale).max(6)), true)),
            arg if arg.is_numeric() => Ok((arg.clone(), true)),
            _ => needs_number(),
        },
        Min | Max => match arg {
            arg if nested || *arg == DataType::Bytes => {
                wrong(format!("{name} does not order {arg}"), "take it of a number, a text or a time")
            }
            arg => Ok((arg.clone(), true)),
        },
        ApproxPercentile => match call.fraction {
            _ if !arg.is_numeric() => needs_number(),
            Some(fraction) if (0.0..=1.0).contains(&fraction) => Ok((DataType::Double, true)),
            Some(fraction) => wrong(format!("the fraction {fraction} is not from 0 to 1"), "0.5 is the median"),
            None => wrong("APPROX_PERCENTILE needs a fraction".to_string(), "write APPROX_PERCENTILE(x, 0.95)"),
        },
        FirstValue | LastValue => Ok((arg.clone(), true)),
    }
}
