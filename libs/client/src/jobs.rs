//! Jobs and graphs.

use api::{
    AppliedJob, ApplyJob, CreateJob, CreatedJob, GraphValidation, Job, JobDetail, JobPage, JobState, PatchJob,
    ValidateGraph,
};
use reqwest::Method;

use crate::send::{Repeat, pages};
use crate::{Client, Result};

/// Which jobs are listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobQuery {
    /// In one of these states; empty: in any.
    pub states: Vec<JobState>,
    /// With all of these labels, each `name=value`.
    pub labels: Vec<String>,
    /// With this in their names.
    pub q: Option<String>,
}

impl Client {
    /// What a script or graph means, or everything that is wrong with it.
    pub async fn validate(&self, graph: &ValidateGraph) -> Result<GraphValidation> {
        let request = self.change(Method::POST, &["graphs", "validate"]).repeat(Repeat::Safe);
        self.json(request.body(graph)).await
    }

    /// Stores a job, and starts it if that is asked for.
    pub async fn create_job(&self, job: &CreateJob) -> Result<CreatedJob> {
        self.json(self.create(&["jobs"]).body(job)).await
    }

    /// A page of jobs, newest first.
    pub async fn jobs_page(&self, query: &JobQuery, size: u32, token: Option<&str>) -> Result<JobPage> {
        let states: Vec<String> = query.states.iter().map(crate::runs::name).collect();
        let request = self.get(&["jobs"]).parameters("state", &states).parameters("label", &query.labels);
        let request = request.optional("q", query.q.as_ref()).parameter("page_size", size.to_string());
        self.json(request.optional("page_token", token)).await
    }

    /// The newest jobs, page after page, at most `limit`.
    pub async fn jobs(&self, query: &JobQuery, limit: usize) -> Result<Vec<Job>> {
        pages(limit, async |size, token| {
            let page = self.jobs_page(query, size, token.as_deref()).await?;
            Ok((page.items, page.next_page_token))
        })
        .await
    }

    /// A job by id or name.
    pub async fn job(&self, job: &str) -> Result<JobDetail> {
        self.json(self.get(&["jobs", job])).await
    }

    /// Creates the job under a name, or gives it a new version where something differs. `dry_run` only says what would change.
    pub async fn apply_job(&self, job: &str, spec: &ApplyJob, dry_run: bool) -> Result<AppliedJob> {
        let request = self.change(Method::PUT, &["jobs", job]).body(spec);
        self.json(if dry_run { request.parameter("dry_run", "true") } else { request }).await
    }

    /// Changes name or labels, whatever the job is now.
    pub async fn patch_job(&self, job: &str, patch: &PatchJob) -> Result<Job> {
        self.json(self.change(Method::PATCH, &["jobs", job]).if_match("*").body(patch)).await
    }

    /// Deletes a job with its versions, runs and views.
    pub async fn delete_job(&self, job: &str) -> Result<()> {
        self.done(self.change(Method::DELETE, &["jobs", job]).if_match("*")).await
    }
}
