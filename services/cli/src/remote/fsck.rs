//! `highwater fsck`.

use super::arguments::FsckArguments;
use super::connect;
use super::failure::Done;
use super::listing::{Listing, Row, left};
use crate::Exit;
use crate::output::say;

/// Lists what is wrong with the checkpoints of a job; fails if anything is.
pub async fn fsck(arguments: &FsckArguments) -> Done {
    let client = connect(&arguments.server)?;
    let check = client.check_checkpoints(&arguments.job).await?;
    let row = |finding: &api::CheckpointFinding| {
        let cells = vec![client::name(&finding.kind), finding.path.clone(), finding.detail.clone()];
        Row::new(cells, finding, &finding.path)
    };
    let columns = [left("finding"), left("path"), left("detail")];
    Listing::new(columns, check.findings.iter().map(row)).print(arguments.form.form)?;
    let all = format!("{} checkpoints, {} files, {} bytes", check.checkpoints, check.files, check.bytes);
    if check.ok {
        say(&format!("all is well: {all}\n"));
        return Ok(Exit::Done);
    }
    say(&format!("{} findings in {all}\n", check.findings.len()));
    Ok(Exit::Failed)
}
