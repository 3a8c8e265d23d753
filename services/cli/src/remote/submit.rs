//! `highwater submit`: from a file to a job of a server.

use std::path::Path;

use api::{AppliedJob, ApplyJob, ApplyOutcome, ChangeKind, CreateJob, CreatedJob, JobLimits, JobSpec, Run, StartRun};
use client::Client;
use miette::Severity;
use serde_json::Value;

use super::arguments::SubmitArguments;
use super::failure::{Done, Failure, show_items};
use super::listing::{Listing, Record, Row, json, left, show_record};
use super::waiting::{self, Hints};
use super::{connect, done, working_directory};
use crate::arguments::ScriptArguments;
use crate::output::say;
use crate::problems::Source;
use crate::script::{self, Script};

pub async fn submit(arguments: &SubmitArguments) -> Done {
    let client = connect(&arguments.server)?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => name_of(&arguments.file)?,
    };
    let (spec, source) = spec(arguments)?;
    let labels: api::Labels = arguments.labels.iter().cloned().collect();
    let form = arguments.form.form;
    if arguments.dry_run {
        let spec = ApplyJob { spec, labels };
        let applied = client.apply_job(&name, &spec, true).await.map_err(|error| Failure::about(error, &source))?;
        show_items(&applied.warnings, Severity::Warning, Some(&source));
        say(&format!("{}\n", outcome(&applied, &name)));
        return changes(&applied).print(form);
    }
    let (mut record, run) = match arguments.apply {
        false => {
            let job = CreateJob { name, spec, labels, start: !arguments.no_start };
            let created = client.create_job(&job).await.map_err(|error| Failure::about(error, &source))?;
            show_items(&created.warnings, Severity::Warning, Some(&source));
            (created_record(&created), created.run)
        }
        true => {
            let spec = ApplyJob { spec, labels };
            let applied =
                client.apply_job(&name, &spec, false).await.map_err(|error| Failure::about(error, &source))?;
            show_items(&applied.warnings, Severity::Warning, Some(&source));
            say(&format!("{}\n", outcome(&applied, &name)));
            let run = if arguments.no_start { None } else { start_applied(&client, &name, &applied).await? };
            (applied_record(&applied, run.as_ref(), &name), run)
        }
    };
    let followed = run.filter(|_| arguments.wait);
    let late = followed.is_some() && form.shows_the_end();
    if !late {
        show_record(&record, form)?;
    }
    let Some(run) = followed else { return done() };
    let hints = Hints { server: arguments.server.server.clone() };
    let ended = waiting::wait(&client, &run.id, &hints).await?;
    if late {
        record.item["run"] = json(&ended);
        // The state of a job is that of its run.
        if let Ok(job) = client.job(&run.job_id).await {
            record.item["job"] = json(&job);
        }
        show_record(&record, form)?;
    }
    Ok(waiting::exit(&ended))
}

/// Starts a run of what was applied; one that is active goes on, and is the one to follow if nothing has changed.
async fn start_applied(client: &Client, name: &str, applied: &AppliedJob) -> Result<Option<Run>, Failure> {
    match client.start_run(name, &StartRun::default()).await {
        Ok(run) => Ok(Some(run)),
        Err(error) if error.code() == Some("run_active") => {
            let active = applied.job.as_ref().and_then(|job| job.job.latest_run.clone());
            if applied.outcome == ApplyOutcome::NewVersion {
                say(&format!(
                    "the active run goes on with the version before; to take the new one: highwater stop {name} --wait && highwater start {name}\n"
                ));
            }
            match active {
                Some(run) => Ok(Some(client.run(&run).await?)),
                None => Ok(None),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// What the file says, as the server takes it.
fn spec(arguments: &SubmitArguments) -> Result<(JobSpec, Source), Failure> {
    let source = script::read(&arguments.file)?;
    let is_graph = script::is_graph(&arguments.file, &source.text);
    let (overrides, settings): (Vec<_>, Vec<_>) =
        arguments.set.iter().cloned().partition(|(key, _)| key.starts_with("tables."));
    let limits = arguments.memory_bytes.map(|bytes| JobLimits { memory_bytes: Some(bytes), ..JobLimits::default() });
    let mut spec = JobSpec {
        base_directory: working_directory(),
        parallelism: arguments.parallelism,
        processes: arguments.processes,
        settings: settings.into_iter().collect(),
        limits,
        ..JobSpec::default()
    };
    match (is_graph, overrides.is_empty()) {
        (false, true) => spec.sql = Some(source.text.clone()),
        (true, true) => {
            let graph = serde_json::from_str(&source.text)
                .map_err(|error| Failure::Wrong(format!("{}: {error}", source.name)))?;
            spec.graph = Some(graph);
        }
        (_, false) => {
            // Options of tables are no settings: they are set in here, and what comes out is sent.
            let planned =
                ScriptArguments { file: arguments.file.clone(), parallelism: None, processes: None, set: overrides };
            let planned = Script::of(source.clone(), &planned)?;
            if planned.explain {
                return Err(Failure::Wrong(format!(
                    "{0} asks for an explanation, and a job is to run: remove EXPLAIN, or use: highwater explain {0}",
                    source.name
                )));
            }
            for (name, value) in given_settings(&planned) {
                spec.settings.entry(name).or_insert(value);
            }
            spec.graph = Some(json(&planned.graph));
        }
    }
    Ok((spec, source))
}

/// What the script sets, which a graph cannot say.
fn given_settings(script: &Script) -> Vec<(String, String)> {
    let text = |(name, value): (&String, &Value)| {
        (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_string))
    };
    script.given.iter().map(text).collect()
}

/// The name of a job after its file.
fn name_of(file: &Path) -> Result<String, Failure> {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(128)
        .collect();
    match name.is_empty() {
        true => Err(Failure::Wrong("the job needs a name: --name NAME".into())),
        false => Ok(name),
    }
}

fn created_record(created: &CreatedJob) -> Record {
    let job = &created.job.job;
    let run = created.run.as_ref().map(|run| run.id.clone());
    let fields = vec![
        (left("job"), format!("{}, version {}", job.name, job.version)),
        (left("id"), job.id.clone()),
        (left("run"), run.clone().unwrap_or_default()),
        (left("views"), created.job.definition.views.join(", ")),
    ];
    Record { fields, item: json(created), name: run.unwrap_or_else(|| job.name.clone()) }
}

fn applied_record(applied: &AppliedJob, run: Option<&Run>, name: &str) -> Record {
    let version = applied.job.as_ref().map(|job| job.job.version).unwrap_or_default();
    let views = applied.job.as_ref().map(|job| job.definition.views.join(", ")).unwrap_or_default();
    let id = run.map(|run| run.id.clone());
    let fields = vec![
        (left("job"), format!("{name}, version {version}")),
        (left("outcome"), client::name(&applied.outcome)),
        (left("run"), id.clone().unwrap_or_default()),
        (left("views"), views),
    ];
    let mut item = json(applied);
    if let (Some(run), Some(object)) = (run, item.as_object_mut()) {
        object.insert("run".into(), json(run));
    }
    Record { fields, item, name: id.unwrap_or_else(|| name.to_string()) }
}

fn outcome(applied: &AppliedJob, name: &str) -> String {
    let would = |done: &'static str, would: &'static str| if applied.applied { done } else { would };
    let what = match applied.outcome {
        ApplyOutcome::Created => would("created", "would be created"),
        ApplyOutcome::NewVersion => would("has a new version", "would get a new version"),
        ApplyOutcome::Relabelled => would("has other labels", "would get other labels"),
        ApplyOutcome::Unchanged => "stays as it is",
    };
    format!("job '{name}' {what}")
}

fn changes(applied: &AppliedJob) -> Listing {
    let row = |change: &api::JobChange| {
        let what = match change.change {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        };
        Row::new(vec![what.into(), change.subject.clone()], change, &change.subject)
    };
    Listing::new([left("change"), left("subject")], applied.changes.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_called_as_its_file() {
        let name = |file: &str| name_of(Path::new(file)).ok();
        assert_eq!(name("/a/flights.sql").as_deref(), Some("flights"));
        assert_eq!(name("my job (2).sql").as_deref(), Some("my-job--2-"));
        assert_eq!(name("_x.json").as_deref(), Some("x"));
        assert_eq!(name("-"), None);
    }
}
