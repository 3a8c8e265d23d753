//! Savepoints, and what checkpoints are made of.

use api::{CheckSavepoint, CheckpointsCheck, CreateSavepoint, Operation, Savepoint, SavepointCheck, SavepointPage};
use reqwest::Method;

use crate::send::{Repeat, pages};
use crate::{Client, Result};

impl Client {
    /// Begins a savepoint of a job; the operation says when it is completed.
    pub async fn create_savepoint(&self, job: &str, savepoint: &CreateSavepoint) -> Result<Operation> {
        self.json(self.create(&["jobs", job, "savepoints"]).body(savepoint)).await
    }

    /// A page of a job's savepoints, newest first.
    pub async fn savepoints_page(&self, job: &str, size: u32, token: Option<&str>) -> Result<SavepointPage> {
        let request = self.get(&["jobs", job, "savepoints"]).parameter("page_size", size.to_string());
        self.json(request.optional("page_token", token)).await
    }

    /// The newest savepoints of a job, page after page, at most `limit`.
    pub async fn savepoints(&self, job: &str, limit: usize) -> Result<Vec<Savepoint>> {
        pages(limit, async |size, token| {
            let page = self.savepoints_page(job, size, token.as_deref()).await?;
            Ok((page.items, page.next_page_token))
        })
        .await
    }

    /// A savepoint by its id.
    pub async fn savepoint(&self, savepoint: &str) -> Result<Savepoint> {
        self.json(self.get(&["savepoints", savepoint])).await
    }

    /// What would become of a savepoint in a script, a graph or a job.
    pub async fn check_savepoint(&self, savepoint: &str, check: &CheckSavepoint) -> Result<SavepointCheck> {
        let request = self.change(Method::POST, &["savepoints", savepoint, "check"]).repeat(Repeat::Safe);
        self.json(request.body(check)).await
    }

    /// Deletes a savepoint with its files.
    pub async fn delete_savepoint(&self, savepoint: &str) -> Result<()> {
        self.done(self.change(Method::DELETE, &["savepoints", savepoint])).await
    }

    /// Compares the checkpoints of a job with their files.
    pub async fn check_checkpoints(&self, job: &str) -> Result<CheckpointsCheck> {
        let request = self.change(Method::POST, &["jobs", job, "checkpoints", "check"]).repeat(Repeat::Safe);
        self.json(request).await
    }
}
