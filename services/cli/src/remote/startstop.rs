//! `highwater start` and `highwater stop`.

use api::{OperationState, StartFrom, StartRun, StopMode, StopRun};

use super::arguments::{StartArguments, StopArguments};
use super::failure::{Done, Failure};
use super::listing::{Record, json, left, show_record};
use super::waiting::{self, Hints};
use super::{connect, done, run_of, runs};
use crate::Exit;
use crate::output::say;

pub async fn start(arguments: &StartArguments) -> Done {
    let client = connect(&arguments.server)?;
    let start = StartRun {
        from: match (&arguments.savepoint, arguments.latest) {
            (Some(_), _) => StartFrom::Savepoint,
            (None, true) => StartFrom::Latest,
            (None, false) => StartFrom::Fresh,
        },
        start_positions_of: arguments.positions_of.clone(),
        savepoint: arguments.savepoint.clone(),
        allow_dropped_state: arguments.allow_dropped_state.clone(),
        on_rewind: arguments.on_rewind.unwrap_or_default(),
        ..StartRun::default()
    };
    let run = client.start_run(&arguments.job, &start).await?;
    let form = arguments.form.form;
    let late = arguments.wait && form.shows_the_end();
    if !late {
        show_record(&runs::record(&run), form)?;
    }
    if !arguments.wait {
        return done();
    }
    let hints = Hints { server: arguments.server.server.clone() };
    let ended = waiting::wait(&client, &run.id, &hints).await?;
    if late {
        show_record(&runs::record(&ended), form)?;
    }
    Ok(waiting::exit(&ended))
}

pub async fn stop(arguments: &StopArguments) -> Done {
    let client = connect(&arguments.server)?;
    let run = run_of(&client, &arguments.run).await?;
    let mode = match (arguments.now, &arguments.savepoint) {
        (true, _) => StopMode::Now,
        (false, Some(_)) => StopMode::Savepoint,
        (false, None) => StopMode::Drain,
    };
    let name = arguments.savepoint.clone().filter(|name| !name.is_empty());
    let mut operation = client.stop_run_as(&run, &StopRun { mode, name, location: None }).await?;
    if arguments.wait {
        let waited = tokio::select! {
            waited = client.wait_operation(&operation.id) => waited?,
            _ = tokio::signal::ctrl_c() => {
                say(&format!("{run} is stopping all the same; see `highwater runs get {run}`\n"));
                return Err(Failure::Interrupted);
            }
        };
        operation = waited;
    }
    let failure = operation.failure.as_ref().map(|failure| failure.detail.clone());
    let fields = vec![
        (left("run"), run),
        (left("operation"), operation.id.clone()),
        (left("savepoint"), operation.savepoint.clone().unwrap_or_default()),
        (left("state"), client::name(&operation.state)),
        (left("progress"), operation.progress.clone().unwrap_or_default()),
        (left("failure"), failure.unwrap_or_default()),
    ];
    show_record(&Record { fields, item: json(&operation), name: operation.id.clone() }, arguments.form.form)?;
    Ok(if operation.state == OperationState::Failed { Exit::Failed } else { Exit::Done })
}
