//! The rules of windows: over the time attribute, of an insert-only input, with lengths in units of the time's precision.

use graph::{Column, DataType, Period, Window};

use super::{Known, TimeAttribute, Walk};

/// Windows that one row may belong to, at most.
const WINDOWS_PER_ROW_MAX: i64 = 100_000;

/// What a window operator adds to its rows.
pub(super) struct Windowing {
    /// `window_start`, `window_end`, `window_time`.
    pub columns: Vec<Column>,
    pub time: TimeAttribute,
}

/// Checks a window over its input; `at` points to the window. Reports every problem.
pub(super) fn check(walk: &mut Walk, id: &str, window: &Window, input: &Known, at: &str) -> Option<Windowing> {
    let before = walk.problems.len();
    if input.updating() {
        let from = input.facts.updates_from.clone().unwrap_or_default();
        let message = format!("{id:?} puts changing rows into windows: the result of {from:?} is updating");
        let hint = "aggregate by windows first, or leave the window out: a plain GROUP BY takes changing rows";
        walk.problem("window_over_updates", message, hint, at.to_string());
        // That its time attribute is lost follows from it.
        return None;
    }
    let column = match window {
        Window::Tumble { time, .. }
        | Window::Hop { time, .. }
        | Window::Cumulate { time, .. }
        | Window::Session { time, .. } => time.clone(),
        Window::Attached {} => {
            if !input.facts.windowed {
                let message = "the input carries no windows: window_start, window_end and window_time of a window operator are not all there";
                walk.problem(
                    "no_window",
                    message,
                    "put a window_assign before it, and let projections keep the three columns as they are",
                    at.into(),
                );
                return None;
            }
            "window_time".to_string()
        }
    };
    let time = time_attribute(walk, &column, input, &format!("{at}/time"))?;
    let unit = Period::from_us(time.unit_us);
    let name = |field: &str| format!("{at}/{field}");
    let mut lengths = |field: &str, length: Period, positive: bool| {
        if positive && length.us <= 0 {
            walk.problem(
                "invalid_window",
                format!("the {field} of a window is above 0, not {length}"),
                "",
                name(field),
            );
        } else if length.us % time.unit_us != 0 {
            let message = format!("the {field} {length} is not a multiple of {unit}, the unit of {}", time.column);
            let digits = if time.unit_us > 1_000 && length.us % 1_000 == 0 { 3 } else { 6 };
            let hint = format!("declare {} with more digits, as TIMESTAMP({digits}), or round the length", time.column);
            walk.problem("invalid_window", message, hint, name(field));
        }
    };
    match window {
        Window::Tumble { size, offset, .. } => {
            lengths("size", *size, true);
            lengths("offset", *offset, false);
        }
        Window::Hop { size, slide, offset, .. } => {
            lengths("size", *size, true);
            lengths("slide", *slide, true);
            lengths("offset", *offset, false);
            steps(walk, "slide", *slide, *size, at);
        }
        Window::Cumulate { size, step, offset, .. } => {
            lengths("size", *size, true);
            lengths("step", *step, true);
            lengths("offset", *offset, false);
            steps(walk, "step", *step, *size, at);
        }
        Window::Session { gap, .. } => lengths("gap", *gap, true),
        Window::Attached {} => {}
    }
    if walk.problems.len() > before {
        return None;
    }
    let time_type = input.facts.schema.column(&time.column).map(|column| column.data_type.clone())?;
    let precision = match time_type {
        DataType::Timestamp(precision) | DataType::TimestampLtz(precision) => precision,
        _ => return None,
    };
    let bounds = match window {
        // What was attached stays as it is.
        Window::Attached {} => input.facts.schema.column("window_start").map(|column| column.data_type.clone())?,
        _ => DataType::Timestamp(precision.max(3)),
    };
    let columns = vec![
        Column::new("window_start", bounds.clone(), false),
        Column::new("window_end", bounds, false),
        Column::new("window_time", time_type, false),
    ];
    Some(Windowing { columns, time: TimeAttribute { column: "window_time".to_string(), unit_us: time.unit_us } })
}

/// The step divides the size, and there are not too many of them.
fn steps(walk: &mut Walk, field: &str, step: Period, size: Period, at: &str) {
    if step.us <= 0 || size.us <= 0 {
        return;
    }
    if size.us % step.us != 0 {
        let message = format!("the {field} {step} does not divide the size {size}");
        walk.problem(
            "invalid_window",
            message,
            format!("choose a size that is a multiple of the {field}"),
            format!("{at}/{field}"),
        );
    } else if size.us / step.us > WINDOWS_PER_ROW_MAX {
        let message =
            format!("each row would belong to {} windows; {WINDOWS_PER_ROW_MAX} are the most", size.us / step.us);
        walk.problem("invalid_window", message, format!("choose a longer {field}"), format!("{at}/{field}"));
    }
}

/// The input's time attribute, if `column` is it.
fn time_attribute(walk: &mut Walk, column: &str, input: &Known, at: &str) -> Option<TimeAttribute> {
    if let Some(time) = &input.facts.time
        && time.column == column
    {
        return Some(time.clone());
    }
    let Some(found) = input.facts.schema.column(column) else {
        let names: Vec<&str> = input.facts.schema.names().collect();
        let hint = graph::suggestion(column, names.iter().copied());
        walk.problem("unknown_column", format!("there is no column {column}"), hint, at.to_string());
        return None;
    };
    let (message, hint) = match (&input.facts.time, &input.no_watermark) {
        (Some(time), _) => (
            format!("{column} is not the time attribute, {} is", time.column),
            format!("use {}, or declare the watermark on {column}", time.column),
        ),
        (None, Some(source)) => (
            format!("{column} ({}) is not a time attribute: {source} declares no watermark, so its windows would never close", found.data_type),
            format!("write WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND in the table, or put a watermark node after the source"),
        ),
        (None, None) => (
            format!("{column} ({}) is no longer a time attribute here", found.data_type),
            "an expression or a GROUP BY without a window ends it: pass the time column through as it is, or use window_time".to_string(),
        ),
    };
    walk.problem("not_a_time_attribute", message, hint, at.to_string());
    None
}
