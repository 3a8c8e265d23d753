//! The scalar functions by name: Flink's with Flink's meaning, then DataFusion's where they are pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use arrow::array::ArrayRef;
use datafusion_common::Result as DfResult;
use datafusion_sql::sqlparser::ast::{Expr, Ident};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{DataType, nearest};

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::ExprError;
use crate::physical::Arg;
use crate::temporal;
use crate::types::Ty;

mod conditional;
mod datafusion;
pub(crate) mod hash;
mod json;
pub(crate) mod like;
mod math;
pub(crate) mod nested;
mod pattern;
mod regexp;
pub(crate) mod text;
mod time;
mod url;

/// A function whose arguments are all evaluated.
pub(crate) struct Function {
    /// The first name is the one that messages use; all upper case.
    pub names: &'static [&'static str],
    pub args: RangeInclusive<usize>,
    /// How it is written, for messages.
    pub usage: &'static str,
    pub bind: fn(&mut Binder, Vec<Bound>) -> Bind,
}

/// An entry of the tables below.
pub(crate) const fn function(
    names: &'static [&'static str],
    args: RangeInclusive<usize>,
    usage: &'static str,
    bind: fn(&mut Binder, Vec<Bound>) -> Bind,
) -> Function {
    Function { names, args, usage, bind }
}

/// Functions that look at their arguments before these are bound: units of time, and branches that may not be evaluated.
const FORMS: &[&str] = &["COALESCE", "IF", "IFNULL", "NULLIF", "TIMESTAMPADD", "TIMESTAMPDIFF", "TRY_CAST", "CAST"];

fn tables() -> impl Iterator<Item = &'static Function> {
    [
        text::FUNCTIONS,
        math::FUNCTIONS,
        math::DOUBLES,
        time::FUNCTIONS,
        regexp::FUNCTIONS,
        json::FUNCTIONS,
        hash::FUNCTIONS,
        url::FUNCTIONS,
        nested::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}

/// The names of all scalar functions, upper case, sorted: for suggestions and completion.
pub fn functions() -> Vec<&'static str> {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let own = tables().flat_map(|function| function.names.iter().copied());
        let names: BTreeSet<&'static str> =
            own.chain(FORMS.iter().copied()).chain(datafusion::names()).chain(["FLOOR", "CEIL", "EXTRACT"]).collect();
        names.into_iter().collect()
    });
    NAMES.clone()
}

/// A call as it is written.
pub(crate) fn named(binder: &mut Binder, name: &Ident, args: &[&Expr], span: Span) -> Bind {
    let upper = name.value.to_uppercase();
    match (upper.as_str(), args) {
        ("COALESCE", args) => conditional::coalesce(binder, args),
        ("IFNULL" | "NVL", [value, other]) => conditional::coalesce(binder, &[value, other]),
        ("IF", [condition, then, otherwise]) => conditional::choose(binder, condition, then, otherwise),
        ("NULLIF", [value, null]) => conditional::null_if(binder, value, null),
        ("TIMESTAMPADD", [unit, count, time]) => temporal::timestamp_add(binder, unit, count, time),
        ("TIMESTAMPDIFF", [unit, from, to]) => temporal::timestamp_diff(binder, unit, from, to),
        ("IFNULL" | "IF" | "NULLIF" | "TIMESTAMPADD" | "TIMESTAMPDIFF", _) => {
            let usage = match upper.as_str() {
                "IFNULL" => "IFNULL(value, other)",
                "IF" => "IF(condition, then, else)",
                "NULLIF" => "NULLIF(value, null)",
                "TIMESTAMPADD" => "TIMESTAMPADD(unit, n, timestamp)",
                _ => "TIMESTAMPDIFF(unit, from, to)",
            };
            Err(wrong_number(&upper, args.len(), usage))
        }
        ("MAP", _) => Err(ExprError::new("unsupported", "MAP[...] is not supported: maps are read, not made")
            .hint("write ROW(...) or ARRAY[...]")),
        _ => {
            let args = args.iter().map(|arg| binder.bind(arg)).collect::<Result<Vec<_>, _>>()?;
            call(binder, &upper, args, span)
        }
    }
}

pub(crate) fn wrong_number(name: &str, given: usize, usage: &str) -> ExprError {
    let arguments = if given == 1 { "argument" } else { "arguments" };
    ExprError::new("wrong_arguments", format!("{name} does not take {given} {arguments}"))
        .hint(format!("write {usage}"))
}

/// A call with bound arguments; the name is upper case.
pub(crate) fn call(binder: &mut Binder, name: &str, args: Vec<Bound>, _span: Span) -> Bind {
    if let Some(function) = tables().find(|function| function.names.contains(&name)) {
        if !function.args.contains(&args.len()) {
            return Err(wrong_number(name, args.len(), function.usage));
        }
        return (function.bind)(binder, args);
    }
    if let Some(result) = datafusion::call(binder, name, args) {
        return result;
    }
    if ["RAND", "RAND_INTEGER"].contains(&name) {
        return Err(datafusion::refused(name));
    }
    Err(unknown(name))
}

/// The error of a name, in upper case, that is no function's.
fn unknown(name: &str) -> ExprError {
    let known = functions().into_iter().chain(AGGREGATES.iter().copied());
    let error = ExprError::new("unknown_function", format!("there is no function {name}"));
    // One letter is near to every other.
    match nearest(name, known).filter(|_| name.len() > 2) {
        Some(name) => error.hint(format!("did you mean {name}?")),
        None => error,
    }
}

/// The error of a call whose arguments are none of a scalar function's, if that is because there is no such function.
pub(crate) fn unknown_name(name: &str) -> Option<ExprError> {
    let name = name.to_uppercase();
    (!functions().contains(&name.as_str())).then(|| unknown(&name))
}

/// Names of aggregates, and of some that there are not.
const AGGREGATES: &[&str] = &[
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "STDDEV",
    "STDDEV_POP",
    "STDDEV_SAMP",
    "VAR_POP",
    "VAR_SAMP",
    "VARIANCE",
    "APPROX_PERCENTILE",
    "FIRST_VALUE",
    "LAST_VALUE",
    "LISTAGG",
    "ARRAY_AGG",
    "COLLECT",
];

/// The error of an aggregate where a scalar function is wanted.
pub(crate) fn misplaced_aggregate(name: &str) -> Option<ExprError> {
    let name = name.to_uppercase();
    AGGREGATES.contains(&name.as_str()).then(|| {
        let error = ExprError::new("unexpected_aggregate", format!("the aggregate {name} cannot stand here"));
        error.hint("aggregates stand in the SELECT list and in HAVING of a query with GROUP BY")
    })
}

/// A function that is written like a column: CURRENT_DATE.
pub(crate) fn without_parentheses(binder: &mut Binder, name: &str, span: Span) -> Option<Bind> {
    let upper = name.to_uppercase();
    let known = ["CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIMESTAMP", "LOCALTIME"];
    known.contains(&upper.as_str()).then(|| call(binder, &upper, Vec::new(), span))
}

/// A function that is NULL where an argument is: coerces the arguments, then calls the kernel.
pub(crate) struct Strict {
    pub name: &'static str,
    /// The last type is also that of all further arguments.
    pub wanted: &'static [DataType],
    pub out: DataType,
    /// Whether it gives NULL also for arguments that are not.
    pub may_null: bool,
    pub fallible: bool,
}

/// The types of a function of texts.
pub(crate) const TEXT: &[DataType] = &[DataType::String];

/// A function that is NULL only where an argument is, and never fails.
pub(crate) fn strict(name: &'static str, wanted: &'static [DataType], out: DataType) -> Strict {
    Strict { name, wanted, out, may_null: false, fallible: false }
}

impl Strict {
    /// The same, NULL also for some arguments that are not.
    pub fn or_null(self) -> Strict {
        Strict { may_null: true, ..self }
    }

    /// The same, but there are arguments for which it fails.
    pub fn fallible(self) -> Strict {
        Strict { fallible: true, ..self }
    }

    /// Coerces the arguments; `run` is given them and the number of rows, and gives a value per row.
    pub fn bind(
        self,
        binder: &mut Binder,
        args: Vec<Bound>,
        run: impl Fn(&[Arg], usize) -> DfResult<ArrayRef> + Send + Sync + 'static,
    ) -> Bind {
        let mut coerced = Vec::with_capacity(args.len());
        for (at, arg) in args.into_iter().enumerate() {
            let wanted = self.wanted.get(at).or(self.wanted.last());
            coerced.push(match wanted {
                Some(wanted) => binder.coerce(arg, wanted, self.name)?,
                None => arg,
            });
        }
        let nullable = self.may_null || coerced.iter().any(|arg| arg.nullable);
        binder.call_with(self.name, coerced, Ty::Sql(self.out), nullable, self.fallible, kernel(run))
    }
}
