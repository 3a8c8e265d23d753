//! Plans as text, for `EXPLAIN` and tests.

use std::fmt;

use super::stage::*;

impl fmt::Display for Plan {
    /// One line per stage: number, operator, what it does, inputs with their routes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, stage) in self.stages.iter().enumerate() {
            write!(f, "{position:>3} {} [{}]", stage.kind, stage.operator)?;
            for edge in &stage.inputs {
                write!(f, " <- {}{}{}", edge.stage, if edge.side { " (side)" } else { "" }, edge.route)?;
            }
            writeln!(f, "\n      {}{}", stage.schema, if stage.updating { "  (updating)" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Local => Ok(()),
            Route::Key(columns) => write!(f, " by key {columns:?}"),
            Route::Single => f.write_str(" to one"),
        }
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageKind::Source(source) => {
                write!(f, "source {} ({})", source.node.table, source.node.connector.name())?;
                for pushed in &source.pushed {
                    write!(f, " where {} {} {}", pushed.column, pushed.op, pushed.literal)?;
                }
                write_steps(f, &source.prelude)?;
                match &source.time {
                    Some(time) => write!(f, " time {} delay {}", time.column, graph::Period::from_us(time.delay_us)),
                    None => Ok(()),
                }
            }
            StageKind::Steps(steps) => {
                f.write_str("steps")?;
                write_steps(f, steps)
            }
            StageKind::Union => f.write_str("union"),
            StageKind::WindowExpand(spec) => write!(f, "window rows {}", spec.windows),
            StageKind::WindowAssign(spec) => write!(f, "panes {}", spec.windows),
            StageKind::WindowPartial(spec) => write!(f, "window partial aggregate {}", Calls(&spec.calls)),
            StageKind::WindowAggregate(spec) => write!(f, "window aggregate {} {}", spec.windows, Calls(&spec.calls)),
            StageKind::SessionAggregate(spec) => {
                write!(f, "session aggregate gap {} {}", graph::Period::from_us(spec.gap), Calls(&spec.calls))
            }
            StageKind::Partial(spec) => write!(f, "partial aggregate {}", Calls(&spec.calls)),
            StageKind::Aggregate(spec) => {
                write!(
                    f,
                    "aggregate{}{} {}",
                    if spec.retracts { " with retractions" } else { "" },
                    if spec.bounded { " once" } else { "" },
                    Calls(&spec.calls)
                )
            }
            StageKind::Sort(spec) => {
                f.write_str("sort")?;
                for by in &spec.by {
                    write!(f, " ${}{}", by.column, if by.descending { " desc" } else { "" })?;
                }
                spec.limit.map_or(Ok(()), |limit| write!(f, " limit {limit}"))
            }
            StageKind::Sink(sink) => write!(f, "sink {} ({})", sink.table, sink.connector.name()),
        }
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = graph::Period::from_us;
        match *self {
            Windows::Hop { size, slide, .. } if size == slide => write!(f, "tumble {}", period(size)),
            Windows::Hop { size, slide, .. } => write!(f, "hop {} every {}", period(size), period(slide)),
            Windows::Cumulate { size, step, .. } => write!(f, "cumulate {} by {}", period(size), period(step)),
            Windows::Attached { .. } => f.write_str("attached"),
        }
    }
}

fn write_steps(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    for step in steps {
        match step {
            Step::Filter(predicate) => write!(f, " | filter {predicate}")?,
            Step::Project(columns, _) => {
                let columns: Vec<String> = columns
                    .iter()
                    .map(|column| {
                        if column.expr == graph::quoted(&column.name) {
                            column.name.clone()
                        } else {
                            format!("{} = {}", column.name, column.expr)
                        }
                    })
                    .collect();
                write!(f, " | {}", columns.join(", "))?;
            }
        }
    }
    Ok(())
}

struct Calls<'a>(&'a [Call]);

impl fmt::Display for Calls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, call) in self.0.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            let arg = call.arg.map_or("*".to_string(), |arg| format!("${arg}"));
            write!(f, "{comma}{}({}{arg})", call.function.name(), if call.distinct { "distinct " } else { "" })?;
            if let Some(filter) = call.filter {
                write!(f, " if ${filter}")?;
            }
        }
        Ok(())
    }
}
