//! `highwater jobs`: what is stored.

use client::{Client, JobQuery};

use super::arguments::{Form, JobsArguments, JobsListArguments, JobsVerb, SureArguments};
use super::failure::Done;
use super::listing::{Listing, Row, job_state, labels, left, print_record, right, time};
use super::{connect, done, only_of_list, sure};
use crate::output::say;

const LIST: usize = 100;

pub async fn jobs(arguments: &JobsArguments) -> Done {
    let client = connect(&arguments.server)?;
    let form = arguments.form.form;
    match &arguments.verb {
        None => listed(&client, &arguments.list).await?.print(form),
        Some(_) if arguments.list != JobsListArguments::default() => Err(only_of_list("jobs")),
        Some(JobsVerb::List(which)) => listed(&client, which).await?.print(form),
        Some(JobsVerb::Get { job }) => get(&client, job, form).await,
        Some(JobsVerb::Delete { job, sure: SureArguments { yes } }) => {
            sure(*yes, &format!("deleting job '{job}' with its versions, runs and views"))?;
            client.delete_job(job).await?;
            say(&format!("deleted job '{job}'\n"));
            done()
        }
    }
}

async fn listed(client: &Client, which: &JobsListArguments) -> Result<Listing, super::Failure> {
    let JobsListArguments { state, label, q, limit } = which;
    let query = JobQuery { states: state.clone(), labels: label.clone(), q: q.clone() };
    list(client, &query, limit.unwrap_or(LIST)).await
}

pub async fn list(client: &Client, query: &JobQuery, limit: usize) -> Result<Listing, super::Failure> {
    let jobs = client.jobs(query, limit).await?;
    let row = |job: &api::Job| {
        let cells = vec![
            job.name.clone(),
            job_state(job.state),
            job.version.to_string(),
            labels(&job.labels),
            time(job.updated_at),
            job.latest_run.clone().unwrap_or_default(),
        ];
        Row::new(cells, job, &job.name)
    };
    let columns = [left("name"), left("state"), right("version"), left("labels"), left("updated"), left("latest run")];
    Ok(Listing::new(columns, jobs.iter().map(row)))
}

async fn get(client: &Client, job: &str, form: Form) -> Done {
    let detail = client.job(job).await?;
    let (job, definition) = (&detail.job, &detail.definition);
    let operators = definition.graph["nodes"].as_array().map_or(0, Vec::len);
    let fields = vec![
        (left("name"), job.name.clone()),
        (left("id"), job.id.clone()),
        (left("state"), job_state(job.state)),
        (right("version"), job.version.to_string()),
        (left("latest run"), job.latest_run.clone().unwrap_or_default()),
        (left("labels"), labels(&job.labels)),
        (left("views"), definition.views.join(", ")),
        (left("delivery"), client::name(&definition.delivery)),
        (left("created"), time(job.created_at)),
        (left("updated"), time(job.updated_at)),
        (right("operators"), operators.to_string()),
        (left("sql"), definition.sql.clone().unwrap_or_default()),
    ];
    print_record(fields, &detail, &job.name, form)
}
