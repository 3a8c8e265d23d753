//! DataFusion's scalar functions, where they are pure and their types have a word in SQL.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::compute;
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion_common::config::ConfigOptions;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, fault, plain_message};
use crate::types::{Ty, arrow_type, casts_implicitly, sql_type};

/// Functions about DataFusion itself, about Arrow's types, or that need its planner.
const HIDDEN: &[&str] = &[
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "arrow_typeof",
    "cast_to_type",
    "file_row_index",
    "get_field",
    "input_file_name",
    "named_struct",
    "nvl2",
    "struct",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "version",
    "with_metadata",
    "date_bin",
    "to_local_time",
    "coalesce",
    "row",
];

struct Known {
    udf: Arc<ScalarUDF>,
    upper: &'static str,
}

/// By upper-case name, aliases too.
static KNOWN: LazyLock<BTreeMap<String, Known>> = LazyLock::new(|| {
    let mut known = BTreeMap::new();
    for udf in datafusion_functions::all_default_functions() {
        if HIDDEN.contains(&udf.name()) {
            continue;
        }
        for name in std::iter::once(udf.name()).chain(udf.aliases().iter().map(String::as_str)) {
            let upper: &'static str = name.to_uppercase().leak();
            known.entry(upper.to_string()).or_insert_with(|| Known { udf: Arc::clone(&udf), upper });
        }
    }
    known
});

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.values().filter(|known| known.udf.signature().volatility == Volatility::Immutable).map(|known| known.upper)
}

/// A call of one of them; `None` if there is none of that name (upper case).
pub(crate) fn call(binder: &mut Binder, name: &str, args: Vec<Bound>) -> Option<Bind> {
    let known = KNOWN.get(name)?;
    if known.udf.signature().volatility != Volatility::Immutable {
        let error = ExprError::new(
            "non_deterministic",
            format!("{name} gives another value each time, so a restart would change results"),
        );
        return Some(Err(
            error.hint("compute it outside, or derive it from columns, for example MD5(CAST(id AS STRING))")
        ));
    }
    Some(bind(binder, known, args))
}

/// Why a function that gives another value each time is not there.
pub(crate) fn refused(name: &str) -> ExprError {
    let error = ExprError::new(
        "non_deterministic",
        format!("{name} gives another value each time, so a restart would change results"),
    );
    error.hint("compute it outside, or derive it from columns, for example MD5(CAST(id AS STRING))")
}

fn bind(binder: &mut Binder, known: &Known, args: Vec<Bound>) -> Bind {
    let udf = Arc::clone(&known.udf);
    let name = known.upper;
    let refused = |error: datafusion_common::DataFusionError, args: &[Bound]| {
        let types: Vec<String> = args.iter().map(|arg| arg.ty.to_string()).collect();
        let reason = plain_message(&error).lines().next().unwrap_or_default().to_string();
        // What its planner reports of itself helps nobody.
        let reason =
            if reason.contains("Internal error") || reason.len() > 160 { String::new() } else { format!(": {reason}") };
        ExprError::new("wrong_arguments", format!("{name} does not take ({}){reason}", types.join(", ")))
    };
    let fields: Vec<FieldRef> =
        args.iter().map(|arg| Arc::new(Field::new("arg", arg.ty.arrow(), arg.nullable)) as FieldRef).collect();
    let wanted = fields_with_udf(&fields, udf.as_ref()).map_err(|error| refused(error, &args))?;
    let mut coerced = Vec::with_capacity(args.len());
    for (arg, wanted) in args.iter().zip(&wanted) {
        coerced.push(as_arrow(binder, arg.clone(), wanted.data_type(), name)?);
    }
    let literals: Vec<_> = coerced.iter().map(|arg| arg.literal.clone()).collect();
    let literals: Vec<_> = literals.iter().map(Option::as_ref).collect();
    let returned = udf.return_field_from_args(ReturnFieldArgs { arg_fields: &wanted, scalar_arguments: &literals });
    let returned = returned.map_err(|error| refused(error, &args))?;
    let Some(out) = sql_type(returned.data_type()) else {
        return Err(ExprError::new(
            "unsupported",
            format!("{name} gives {}, which has no SQL type", returned.data_type()),
        ));
    };
    let canonical = arrow_type(&out);
    let nullable = returned.is_nullable();
    let options = Arc::new(ConfigOptions::default());
    let run = kernel(move |args, rows| {
        let args = args.iter().map(|arg| match arg.constant {
            true => datafusion_common::ScalarValue::try_from_array(&arg.array, 0).map(ColumnarValue::Scalar),
            false => Ok(ColumnarValue::Array(Arc::clone(&arg.array))),
        });
        let args = ScalarFunctionArgs {
            args: args.collect::<Result<_, _>>()?,
            arg_fields: wanted.clone(),
            number_rows: rows,
            return_field: Arc::clone(&returned),
            config_options: Arc::clone(&options),
        };
        let array = udf.invoke_with_args(args)?.into_array(rows)?;
        if array.data_type() == &canonical { Ok(array) } else { Ok(compute::cast(&array, &canonical)?) }
    });
    binder.call_with(name, coerced, Ty::Sql(out), nullable, true, run)
}

/// The argument in exactly the Arrow type that a function of DataFusion wants, if SQL would cast it without a written CAST.
fn as_arrow(binder: &mut Binder, arg: Bound, wanted: &ArrowType, name: &str) -> Bind {
    let Some(t) = sql_type(wanted) else {
        return Err(ExprError::new(
            "wrong_arguments",
            format!("{name} wants an argument that has no SQL type: {wanted}"),
        )
        .at(arg.span));
    };
    let arg = match &arg.ty {
        Ty::Sql(from) if casts_implicitly(from, &t) => binder.cast(arg, &t, crate::cast::Mode::Strict)?,
        _ => binder.coerce(arg, &t, name)?,
    };
    if arrow_type(&t) == *wanted {
        return Ok(arg);
    }
    // Another layout of the same type. The kernel's own type is that layout, so this is not a Call of an SQL type.
    let (nullable, out) = (arg.nullable, wanted.clone());
    let run = kernel(move |args, _| compute::cast(&args[0].array, &out).map_err(|error| fault(error.to_string())));
    let node = crate::physical::Call::node("layout", vec![Arc::clone(&arg.node)], wanted.clone(), nullable, run);
    binder.finish(node, vec![arg], Ty::Sql(t), |_| nullable, false)
}
