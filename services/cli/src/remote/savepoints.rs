//! `highwater savepoint`.

use std::path::Path;

use api::{CheckSavepoint, CreateSavepoint, Operation, OperationState, OperatorVerdict, Savepoint};

use super::arguments::{Form, SavepointArguments, SavepointVerb, SureArguments};
use super::failure::{Done, Failure};
use super::listing::{Listing, Row, left, maybe_time, print_record, right, time};
use super::{connect, sure, working_directory};
use crate::Exit;
use crate::output::say;

/// Savepoints that are listed unless it is said otherwise.
const LISTED: usize = 100;

pub async fn savepoint(arguments: &SavepointArguments) -> Done {
    let (client, form) = (connect(&arguments.server)?, arguments.form.form);
    match &arguments.verb {
        SavepointVerb::Create { job, name, location, wait } => {
            let wanted = CreateSavepoint { name: name.clone(), location: location.clone() };
            let mut operation = client.create_savepoint(job, &wanted).await?;
            if *wait {
                operation = tokio::select! {
                    waited = client.wait_operation(&operation.id) => waited?,
                    _ = tokio::signal::ctrl_c() => {
                        say(&format!("the savepoint is made all the same: {}\n", operation.savepoint.unwrap_or_default()));
                        return Err(Failure::Interrupted);
                    }
                };
            }
            let made = client.savepoint(operation.savepoint.as_deref().unwrap_or_default()).await?;
            show(&made, form)?;
            Ok(exit(&operation))
        }
        SavepointVerb::List { job, limit } => {
            let all = client.savepoints(job, limit.unwrap_or(LISTED)).await?;
            let columns = [left("id"), left("name"), left("state"), right("epoch"), right("bytes"), left("created")];
            Listing::new(columns, all.iter().map(row)).print(form)
        }
        SavepointVerb::Show { savepoint } => show(&client.savepoint(savepoint).await?, form),
        SavepointVerb::Check { savepoint, job, file, allow_dropped_state } => {
            let mut check = CheckSavepoint {
                job: job.clone(),
                allow_dropped_state: allow_dropped_state.clone(),
                ..CheckSavepoint::default()
            };
            if let Some(file) = file {
                read(file, &mut check)?;
            }
            let checked = client.check_savepoint(savepoint, &check).await?;
            let columns = [
                left("operator"),
                left("role"),
                left("verdict"),
                left("fits"),
                right("rows"),
                right("bytes"),
                left("reason"),
            ];
            Listing::new(columns, checked.operators.iter().map(verdict)).print(form)?;
            Ok(if checked.fits { Exit::Done } else { Exit::Conflict })
        }
        SavepointVerb::Delete { savepoint, sure: SureArguments { yes } } => {
            sure(*yes, &format!("deleting savepoint {savepoint} with its files"))?;
            client.delete_savepoint(savepoint).await?;
            Ok(Exit::Done)
        }
    }
}

fn exit(operation: &Operation) -> Exit {
    if operation.state == OperationState::Failed { Exit::Failed } else { Exit::Done }
}

/// The script or graph of a file.
fn read(file: &Path, check: &mut CheckSavepoint) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Wrong(format!("cannot read {}: {error}", file.display())))?;
    if file.extension().is_some_and(|extension| extension == "json") {
        let graph = serde_json::from_str(&text)
            .map_err(|error| Failure::Wrong(format!("{} is not JSON: {error}", file.display())))?;
        check.graph = Some(graph);
    } else {
        check.sql = Some(text);
    }
    check.base_directory = working_directory();
    Ok(())
}

fn row(savepoint: &Savepoint) -> Row {
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let cells = vec![
        savepoint.id.clone(),
        savepoint.name.clone(),
        client::name(&savepoint.state),
        number(savepoint.epoch),
        number(savepoint.bytes),
        time(savepoint.created_at),
    ];
    Row::new(cells, savepoint, &savepoint.id)
}

fn verdict(verdict: &OperatorVerdict) -> Row {
    let cells = vec![
        verdict.operator.clone(),
        client::name(&verdict.role),
        client::name(&verdict.verdict),
        if verdict.fits { "yes" } else { "no" }.to_string(),
        verdict.rows.to_string(),
        verdict.bytes.to_string(),
        verdict.reason.clone().unwrap_or_default(),
    ];
    Row::new(cells, verdict, &verdict.operator)
}

fn show(savepoint: &Savepoint, form: Form) -> Done {
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let state =
        savepoint.operators.iter().map(|one| format!("{}: {} rows, {} bytes", one.operator, one.rows, one.bytes));
    let fields = vec![
        (left("id"), savepoint.id.clone()),
        (left("name"), savepoint.name.clone()),
        (left("job"), savepoint.job_name.clone()),
        (left("run"), savepoint.run_id.clone()),
        (left("state"), client::name(&savepoint.state)),
        (right("epoch"), number(savepoint.epoch)),
        (right("bytes"), number(savepoint.bytes)),
        (left("location"), savepoint.location.clone()),
        (left("operators"), state.collect::<Vec<_>>().join("\n")),
        (left("failure"), savepoint.failure.as_ref().map(|failure| failure.detail.clone()).unwrap_or_default()),
        (left("created"), time(savepoint.created_at)),
        (left("ended"), maybe_time(savepoint.ended_at)),
    ];
    print_record(fields, savepoint, &savepoint.id, form)
}
