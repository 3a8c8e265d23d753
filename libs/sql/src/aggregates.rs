//! Aggregate functions: which names are, which are refused, and how a call is read.

use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, UnaryOperator, Value,
    ValueWithSpan,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{AggregateCall, AggregateFunction, Problem};

use crate::place;
use crate::resolve::{function_name, without_parentheses};

/// A call whose names are resolved.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: AggregateFunction,
    pub argument: Option<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub fraction: Option<f64>,
    pub span: Span,
}

impl Call {
    /// Whether both are the same, wherever they stand.
    pub fn equals(&self, other: &Call) -> bool {
        let fractions = self.fraction.map(f64::to_bits) == other.fraction.map(f64::to_bits);
        self.function == other.function
            && self.argument == other.argument
            && self.distinct == other.distinct
            && self.filter == other.filter
            && fractions
    }

    pub fn named(&self, name: String) -> AggregateCall {
        AggregateCall {
            name,
            function: self.function,
            args: self.argument.iter().map(ToString::to_string).collect(),
            distinct: self.distinct,
            filter: self.filter.as_ref().map(ToString::to_string),
            fraction: self.fraction,
        }
    }

    /// A name for the result where the query gives none.
    pub fn default_name(&self) -> String {
        let argument = self.argument.as_ref().map_or("*".to_string(), ToString::to_string).replace('`', "");
        let distinct = if self.distinct { "distinct " } else { "" };
        let text = match self.fraction {
            Some(fraction) => format!("{}({argument}, {fraction})", self.function.name()),
            None => format!("{}({distinct}{argument})", self.function.name()),
        };
        if text.chars().count() <= 60 { text } else { self.function.name().to_string() }
    }
}

fn known(name: &str) -> Option<AggregateFunction> {
    Some(match name {
        "COUNT" => AggregateFunction::Count,
        "SUM" => AggregateFunction::Sum,
        "AVG" | "MEAN" => AggregateFunction::Avg,
        "MIN" => AggregateFunction::Min,
        "MAX" => AggregateFunction::Max,
        "STDDEV_POP" => AggregateFunction::StddevPop,
        "STDDEV" | "STDDEV_SAMP" => AggregateFunction::StddevSamp,
        "VAR_POP" => AggregateFunction::VarPop,
        "VARIANCE" | "VAR_SAMP" => AggregateFunction::VarSamp,
        "APPROX_PERCENTILE" | "APPROX_PERCENTILE_CONT" | "APPROX_QUANTILE" | "APPROX_MEDIAN" => {
            AggregateFunction::ApproxPercentile
        }
        "FIRST_VALUE" => AggregateFunction::FirstValue,
        "LAST_VALUE" => AggregateFunction::LastValue,
        _ => return None,
    })
}

pub fn is_aggregate(function: &Function) -> bool {
    known(&function_name(function)).is_some()
}

/// What to write instead of aggregates and window functions that there are not.
pub fn refused(name: &str) -> Option<&'static str> {
    const LISTS: &str = "aggregates give one value: count, sum, avg, min, max, stddev, variance, approx_percentile, first_value, last_value";
    Some(match name {
        "LISTAGG" | "STRING_AGG" | "ARRAY_AGG" | "COLLECT" | "JSON_OBJECTAGG" | "JSON_ARRAYAGG" => LISTS,
        "PERCENTILE" | "PERCENTILE_CONT" | "PERCENTILE_DISC" | "MEDIAN" | "QUANTILE" => {
            "write APPROX_PERCENTILE(x, 0.5): within 1 % of the exact value"
        }
        "APPROX_COUNT_DISTINCT" | "APPROX_DISTINCT" => "write COUNT(DISTINCT x), which is exact",
        "CORR" | "COVAR_POP" | "COVAR_SAMP" | "REGR_SLOPE" | "REGR_INTERCEPT" | "BIT_AND" | "BIT_OR" | "BIT_XOR"
        | "BOOL_AND" | "BOOL_OR" => LISTS,
        "ARG_MIN" | "ARG_MAX" | "MIN_BY" | "MAX_BY" | "ANY_VALUE" => LISTS,
        "GROUPING" | "GROUPING_ID" | "GROUP_ID" => {
            "there are no GROUPING SETS; write one SELECT per grouping, with UNION ALL"
        }
        "ROW_NUMBER" | "RANK" | "DENSE_RANK" | "NTILE" | "LAG" | "LEAD" | "NTH_VALUE" | "CUME_DIST"
        | "PERCENT_RANK" => "there is no OVER; on a bounded input ORDER BY ... LIMIT n gives the first rows",
        "TUMBLE_PROCTIME" | "HOP_PROCTIME" | "SESSION_PROCTIME" => "windows go by event time; write ..._ROWTIME",
        _ => return None,
    })
}

/// Reads a call; the problem says what it lacks.
pub fn read(function: &Function) -> Result<Call, Problem> {
    let name = function_name(function);
    let span = Expr::Function(function.clone()).span();
    let wrong = |message: String, hint: &str| Problem::new("invalid_aggregate", message).hint(hint).at(place(span));
    let Some(kind) = known(&name) else {
        return Err(wrong(format!("{name} is no aggregate"), "write count, sum, avg, min or max"));
    };
    let FunctionArguments::List(list) = &function.args else {
        return Err(wrong(format!("{name} has no arguments"), "write the arguments in parentheses"));
    };
    if function.null_treatment.is_some() || !list.clauses.is_empty() {
        return Err(wrong(
            format!("{name} takes no clauses among its arguments"),
            "write the value alone; FILTER (WHERE ...) selects rows",
        ));
    }
    let mut distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    let mut star = false;
    let mut args = Vec::new();
    for arg in &list.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => star = true,
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => args.push(expr.clone()),
            other => return Err(wrong(format!("{name} cannot take {other}"), "write the value alone")),
        }
    }
    let mut fraction = None;
    if kind == AggregateFunction::ApproxPercentile {
        let usage = "write APPROX_PERCENTILE(x, 0.95), the fraction being a number from 0 to 1";
        if let [order] = &function.within_group[..] {
            // APPROX_PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY x)
            if order.options.asc == Some(false) {
                return Err(wrong(format!("{name} goes upwards"), usage));
            }
            args.insert(0, order.expr.clone());
        }
        if name == "APPROX_MEDIAN" {
            fraction = Some(0.5);
        } else {
            fraction = args.get(1).and_then(number).filter(|fraction| (0.0..=1.0).contains(fraction));
            args.truncate(if args.len() == 2 { 1 } else { usize::MAX });
        }
        if fraction.is_none() {
            return Err(wrong(format!("cannot read the fraction of {name}"), usage));
        }
    } else if !function.within_group.is_empty() {
        return Err(wrong(format!("{name} takes no WITHIN GROUP"), "remove it"));
    }
    match (kind, args.len()) {
        (AggregateFunction::Count, 0) if star && !distinct => {}
        (_, 1) if !star => {}
        (AggregateFunction::Count, n) if distinct && n > 1 => {
            return Err(wrong(
                "COUNT(DISTINCT a, b) is not supported".into(),
                "count the rows of SELECT DISTINCT a, b FROM t WHERE a IS NOT NULL AND b IS NOT NULL",
            ));
        }
        _ => return Err(wrong(format!("{name} takes one value"), "write one value in its parentheses")),
    }
    let mut argument = args.pop();
    if kind == AggregateFunction::Count && !distinct && argument.as_ref().is_some_and(is_constant) {
        argument = None; // COUNT(1)
    }
    match kind {
        AggregateFunction::Min | AggregateFunction::Max => distinct = false,
        AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Avg => {}
        _ if distinct => {
            return Err(wrong(format!("{name} takes no DISTINCT"), "DISTINCT goes with count, sum and avg"));
        }
        _ => {}
    }
    Ok(Call { function: kind, argument, distinct, filter: function.filter.as_deref().cloned(), fraction, span })
}

fn is_constant(expr: &Expr) -> bool {
    match without_parentheses(expr) {
        Expr::Value(ValueWithSpan { value, .. }) => !matches!(value, Value::Null),
        _ => false,
    }
}

fn number(expr: &Expr) -> Option<f64> {
    match without_parentheses(expr) {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text.parse().ok(),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => number(expr),
        _ => None,
    }
}
