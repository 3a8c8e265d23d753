//! `highwater runs`: what has run and runs, and what can be seen of it.

use api::{OperatorFigures, Run};
use client::{Client, RunQuery};

use super::arguments::{Form, RunsArguments, RunsListArguments, RunsVerb};
use super::failure::{Done, Failure, run_failure};
use super::listing::{
    Listing, Record, Row, bytes, json, left, maybe_time, number, right, run_state, span, time, watermark,
};
use super::waiting::{self, Hints};
use super::{connect, only_of_list, run_of};
use crate::output::say;

const LIST: usize = 100;

pub async fn runs(arguments: &RunsArguments) -> Done {
    let client = connect(&arguments.server)?;
    let form = arguments.form.form;
    let Some(verb) = &arguments.verb else {
        return listed(&client, &arguments.list).await?.print(form);
    };
    if arguments.list != RunsListArguments::default() {
        return Err(only_of_list("runs"));
    }
    match verb {
        RunsVerb::List(which) => listed(&client, which).await?.print(form),
        RunsVerb::Get { run, wait } => {
            let id = run_of(&client, run).await?;
            let hints = Hints { server: arguments.server.server.clone() };
            let run = if *wait { waiting::wait(&client, &id, &hints).await? } else { client.run(&id).await? };
            let shown = record(&run).print(form);
            if *wait { shown.map(|_| waiting::exit(&run)) } else { shown }
        }
        RunsVerb::Graph { run } => graph(&client, &run_of(&client, run).await?).await?.print(form),
        RunsVerb::Watermarks { run } => watermarks(&client, &run_of(&client, run).await?, form).await,
        RunsVerb::LateRows { run } => late_rows(&client, &run_of(&client, run).await?).await?.print(form),
        RunsVerb::DeadLetters { run } => dead_letters(&client, &run_of(&client, run).await?).await?.print(form),
        RunsVerb::Errors { run } => errors(&client, &run_of(&client, run).await?).await?.print(form),
        RunsVerb::Events { run } => events(&client, &run_of(&client, run).await?).await?.print(form),
        RunsVerb::Logs { run, lines } => logs(&client, &run_of(&client, run).await?, *lines, form).await,
        RunsVerb::Metrics { run, names, window, step } => {
            let id = run_of(&client, run).await?;
            let metrics = client.run_metrics(&id, names, *window, *step).await?;
            if metrics.series.is_empty() {
                say(&without_series(&client.run(&id).await?, metrics.step_seconds));
            }
            metrics_listing(&metrics).print(form)
        }
    }
}

async fn listed(client: &Client, which: &RunsListArguments) -> Result<Listing, Failure> {
    let RunsListArguments { job, state, limit } = which;
    list(client, &RunQuery { job: job.clone(), states: state.clone() }, limit.unwrap_or(LIST)).await
}

async fn list(client: &Client, query: &RunQuery, limit: usize) -> Result<Listing, Failure> {
    let runs = client.runs(query, limit).await?;
    let row = |run: &Run| {
        let progress = &run.progress;
        let cells = vec![
            run.id.clone(),
            run.job_name.clone(),
            run.version.to_string(),
            run_state(run.state),
            number(progress.rows_in),
            number(progress.rows_out),
            watermark(progress),
            time(run.created_at),
            maybe_time(run.ended_at),
        ];
        Row::new(cells, run, &run.id)
    };
    let columns = [
        left("id"),
        left("job"),
        right("version"),
        left("state"),
        right("rows in"),
        right("rows out"),
        left("watermark"),
        left("created"),
        left("ended"),
    ];
    Ok(Listing::new(columns, runs.iter().map(row)))
}

/// A run, field by field.
pub fn record(run: &Run) -> Record {
    let progress = &run.progress;
    let positions = run.start_positions.iter().flat_map(|(operator, splits)| {
        splits.iter().map(move |(split, position)| format!("{operator}/{split}: {position}"))
    });
    let warnings = run.warnings.iter().map(|warning| warning.message.clone());
    let fields = vec![
        (left("id"), run.id.clone()),
        (left("job"), format!("{}, version {}", run.job_name, run.version)),
        (left("state"), run_state(run.state)),
        (left("since"), time(run.since)),
        (left("waiting for"), run.waiting_for.clone().unwrap_or_default()),
        (left("warnings"), warnings.collect::<Vec<_>>().join("\n")),
        (left("failure"), run_failure(run).trim_end().to_string()),
        (right("rows in"), number(progress.rows_in)),
        (right("rows out"), number(progress.rows_out)),
        (left("watermark"), watermark(progress)),
        (left("lag"), progress.lag_ms.map(span).unwrap_or_default()),
        (right("lag records"), progress.lag_records.map(number).unwrap_or_default()),
        (right("late rows"), number(progress.late_rows)),
        (right("dead letters"), number(progress.dead_letters)),
        (left("epoch"), format!("{}, committed {}", number(progress.epoch), number(progress.committed_epoch))),
        (left("state size"), bytes(progress.state_bytes)),
        (left("memory"), bytes(progress.resident_bytes)),
        (left("began at"), positions.collect::<Vec<_>>().join("\n")),
        (left("created"), time(run.created_at)),
        (left("started"), maybe_time(run.started_at)),
        (left("ended"), maybe_time(run.ended_at)),
    ];
    Record { fields, item: json(run), name: run.id.clone() }
}

async fn graph(client: &Client, run: &str) -> Result<Listing, Failure> {
    let graph = client.run_graph(run).await?;
    let row = |operator: &api::OperatorStatus| {
        let inputs: Vec<&str> =
            graph.edges.iter().filter(|edge| edge.to == operator.id).map(|edge| edge.from.as_str()).collect();
        let OperatorFigures { rows_in, rows_out, state_bytes, .. } = operator.total;
        let figures = &operator.total;
        let rate = |rate: Option<f64>| rate.map(|rate| number(rate.round() as u64)).unwrap_or_default();
        let share = |share: Option<f64>| share.map(|share| format!("{:.0} %", share * 100.0)).unwrap_or_default();
        let cells = vec![
            operator.id.clone(),
            operator.operator.clone(),
            inputs.join(", "),
            operator.subtasks.len().to_string(),
            number(rows_in),
            number(rows_out),
            rate(figures.rows_in_per_second),
            share(figures.busy_ratio),
            share(figures.backpressured_ratio),
            if figures.final_watermark { "end of input".into() } else { maybe_time(figures.watermark) },
            bytes(state_bytes),
        ];
        Row::new(cells, operator, &operator.id)
    };
    let columns = [
        left("stage"),
        left("operator"),
        left("inputs"),
        right("subtasks"),
        right("rows in"),
        right("rows out"),
        right("rows/s"),
        right("busy"),
        right("waiting"),
        left("watermark"),
        right("state"),
    ];
    Ok(Listing::new(columns, graph.operators.iter().map(row)))
}

async fn watermarks(client: &Client, run: &str, form: Form) -> Done {
    let watermarks = client.run_watermarks(run).await?;
    let row = |split: &api::SplitStatus| {
        let name = format!("{}/{}", split.operator, split.split);
        let held = watermarks.held_back_by.contains(&name);
        let state = match (split.finished, split.idle, held) {
            (true, ..) => "finished",
            (_, true, _) => "idle",
            (_, _, true) => "holds back",
            _ => "",
        };
        let cells = vec![
            split.table.clone(),
            split.split.clone(),
            split.position.clone().unwrap_or_default(),
            maybe_time(split.watermark),
            split.lag_records.map(number).unwrap_or_default(),
            state.to_string(),
        ];
        Row::new(cells, split, name)
    };
    let columns =
        [left("table"), left("split"), left("position"), left("watermark"), right("lag records"), left("state")];
    Listing::new(columns, watermarks.splits.iter().map(row)).print(form)
}

async fn late_rows(client: &Client, run: &str) -> Result<Listing, Failure> {
    let late = client.run_late_rows(run).await?;
    left_out(late.total, late.items.len(), "late rows");
    let row = |row: &api::LateRow| {
        let cells = vec![row.operator.clone(), time(row.event_time), maybe_time(row.watermark), row.row.clone()];
        Row::new(cells, row, &row.operator)
    };
    let columns = [left("operator"), left("event time"), left("watermark"), left("row")];
    Ok(Listing::new(columns, late.items.iter().map(row)))
}

async fn dead_letters(client: &Client, run: &str) -> Result<Listing, Failure> {
    let dead = client.run_dead_letters(run).await?;
    left_out(dead.total, dead.items.len(), "dead letters");
    let row = |letter: &api::DeadLetter| {
        let position = letter.position.clone().unwrap_or_default();
        let name = format!("{}/{position}", letter.split);
        let cells = vec![
            letter.source.clone(),
            letter.split.clone(),
            position,
            letter.code.clone(),
            letter.message.clone(),
            letter.payload.clone(),
        ];
        Row::new(cells, letter, name)
    };
    let columns = [left("source"), left("split"), left("position"), left("code"), left("message"), left("payload")];
    Ok(Listing::new(columns, dead.items.iter().map(row)))
}

fn left_out(total: u64, shown: usize, what: &str) {
    if total > shown as u64 {
        say(&format!("the newest {} of {} {what}\n", number(shown as u64), number(total)));
    }
}

async fn errors(client: &Client, run: &str) -> Result<Listing, Failure> {
    let errors = client.run_errors(run).await?;
    let row = |error: &api::RunError| {
        let problem = &error.failure.problem;
        let cells = vec![
            error.attempt.to_string(),
            time(error.at),
            problem.code.clone(),
            problem.detail.clone(),
            error.failure.operator.clone().unwrap_or_default(),
            client::name(&error.failure.fault),
        ];
        Row::new(cells, error, &problem.code)
    };
    let columns = [right("attempt"), left("at"), left("code"), left("message"), left("operator"), left("fault")];
    Ok(Listing::new(columns, errors.items.iter().map(row)))
}

async fn events(client: &Client, run: &str) -> Result<Listing, Failure> {
    let events = client.run_events(run).await?;
    let row = |event: &api::RunEvent| {
        let cells = vec![
            event.sequence.to_string(),
            time(event.at),
            event.from.map(run_state).unwrap_or_default(),
            run_state(event.to),
            event.cause.clone().unwrap_or_default(),
        ];
        Row::new(cells, event, run_state(event.to))
    };
    let columns = [right("sequence"), left("at"), left("from"), left("to"), left("cause")];
    Ok(Listing::new(columns, events.items.iter().map(row)))
}

/// A log reads better as lines than as a table.
async fn logs(client: &Client, run: &str, lines: u32, form: Form) -> Done {
    let logs = client.run_logs(run, lines).await?;
    if logs.truncated && form == Form::Table {
        say("older lines are left out\n");
    }
    let row = |line: &api::LogLine| {
        let cells = vec![maybe_time(line.at), line.level.clone().unwrap_or_default(), line.message.clone()];
        Row::new(cells, line, &line.message)
    };
    let listing = Listing::new([left("at"), left("level"), left("message")], logs.items.iter().map(row));
    if form != Form::Table {
        return listing.print(form);
    }
    let line = |row: &Row| format!("{}\n", crate::output::visible(row.cells.join(" ").trim_start()));
    Ok(crate::output::answer(listing.rows.iter().map(line).collect::<String>().as_bytes()))
}

/// Why there is no series of a run.
fn without_series(run: &Run, step_seconds: u64) -> String {
    let why = match run.ended_at {
        Some(_) => "series are kept while a run goes on, and it has ended: `highwater runs get` has its last figures",
        None => "nothing was measured yet",
    };
    let steps = if step_seconds == 1 { "a second".to_string() } else { format!("{step_seconds} seconds") };
    format!("{} has no series: {why}; a point is taken every {steps}\n", run.id)
}

/// Of every series its newest point, its smallest and its largest; as JSON all points.
fn metrics_listing(metrics: &api::RunMetrics) -> Listing {
    let row = |series: &api::MetricSeries| {
        let values: Vec<f64> = series.points.iter().filter_map(|point| point.value).collect();
        let figure = |value: Option<f64>| value.map(|value| format!("{value:.1}")).unwrap_or_default();
        let cells = vec![
            series.name.clone(),
            series.operator.clone().unwrap_or_default(),
            series.unit.clone(),
            values.len().to_string(),
            figure(values.last().copied()),
            figure(values.iter().copied().reduce(f64::min)),
            figure(values.iter().copied().reduce(f64::max)),
        ];
        Row::new(cells, series, &series.name)
    };
    let columns = [
        left("name"),
        left("stage"),
        left("unit"),
        right("points"),
        right("newest"),
        right("smallest"),
        right("largest"),
    ];
    Listing::new(columns, metrics.series.iter().map(row))
}
