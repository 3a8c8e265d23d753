//! The checkpoints of a job, compared with what is kept of them.

use std::time::Duration;

use api::{CheckpointFinding, CheckpointFindingKind as Kind, CheckpointsCheck, IdKind, Problem};
use axum::Json;
use axum::extract::{Path, State};
use control::epochs::collection::Finding;
use control::inspect::CheckpointFile;
use metadata::{EpochFilter, EpochPage};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::jobs;
use crate::app::App;
use crate::auth::Operator;
use crate::problem::ApiResult;
use crate::{facts, inspect};

/// What no checkpoint names may stay for so long.
const GRACE: Duration = Duration::from_secs(600);
/// A job that gives checkpoints up faster than they are read is looked at so often.
const TRIES: u32 = 5;
/// Newest checkpoints that are compared; a job keeps a handful.
const CHECKPOINTS_MAX: i64 = 1000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(check_checkpoints))
}

/// Check the checkpoints of a job
///
/// Reads every file that a kept checkpoint names and compares it with its length and hash, and looks for files that no checkpoint names and
/// that were not deleted within ten minutes. The job may run meanwhile.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/checkpoints/check", operation_id = "check_checkpoints", tag = "runs",
    params(("job" = String, Path, description = "Id or name of a job")), responses(
        (status = 200, description = "What was found", body = CheckpointsCheck),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json")))]
async fn check_checkpoints(
    Operator(_): Operator,
    State(app): State<App>,
    Path(job): Path<String>,
) -> ApiResult<Json<CheckpointsCheck>> {
    let job_id = jobs::find(&app, &job).await?.job_id;
    let job = IdKind::Job.text(job_id);
    let mut tries = 0;
    let (kept, compared) = loop {
        let kept = retained(&app, job_id).await?;
        let compared = inspect::fsck(&app, job.clone(), kept.clone(), GRACE).await?;
        let still = retained(&app, job_id).await?;
        tries += 1;
        // Of a checkpoint that was given up meanwhile files may be missing.
        if kept.iter().all(|checkpoint| still.contains(checkpoint)) || tries == TRIES {
            break (kept, compared);
        }
    };
    let findings: Vec<CheckpointFinding> = compared.findings.into_iter().map(shown).collect();
    Ok(Json(CheckpointsCheck {
        ok: findings.is_empty(),
        checkpoints: kept.len() as u64,
        files: compared.files,
        bytes: compared.bytes,
        findings,
    }))
}

async fn retained(app: &App, job_id: uuid::Uuid) -> ApiResult<Vec<CheckpointFile>> {
    let states = vec!["decided".into(), "committed".into()];
    let filter = EpochFilter { job_id, run_id: None, states };
    let epochs = app.store.epochs(&filter, EpochPage { after: None, limit: CHECKPOINTS_MAX }).await?;
    Ok(epochs.iter().map(facts::checkpoint_file).collect())
}

fn shown(finding: Finding<String>) -> CheckpointFinding {
    let (kind, path, detail) = match finding {
        Finding::Missing { name } => (Kind::Missing, name, "a checkpoint names it, and it is not there".to_string()),
        Finding::Length { name, expected, found } => {
            (Kind::Length, name, format!("it has {found} bytes; written were {expected}"))
        }
        Finding::Content { name, expected, found } => {
            (Kind::Content, name, format!("its sha256 is {found}; that of what was written is {expected}"))
        }
        Finding::Orphan { name } => (Kind::Orphan, name, "no checkpoint names it".to_string()),
    };
    CheckpointFinding { kind, path, detail }
}
