//! Every case by way of savepoints: begun by one worker, gone on with by three, finished by two, in memory and on disk. Each time the checkpoint becomes a savepoint
//! and the savepoint a checkpoint; what was committed in all must be the golden result.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use graph::StateBackend;
use integration_tests::compare::{self, Row};
use rstest::rstest;
use state::savepoint::{self, Description, Target};
use state::{Manifest, MemoryFiles};

use super::cases::Case;
use super::restart::{attempt_of, counted_as_undisturbed, script};

/// Of a file: so few that there are several, now as many as workers, now not.
const PIECE_ROWS: usize = 3;
/// Where the attempts keep their state, one after the other.
const MEMORY: [StateBackend; 3] = [StateBackend::Memory; 3];
const BOTH: [StateBackend; 3] = [StateBackend::Rocksdb, StateBackend::Memory, StateBackend::Rocksdb];

#[rstest]
fn savepoints_and_other_numbers_of_workers_change_nothing(
    #[files("cases/*/query.sql")] query: PathBuf,
    #[values(true, false)] streamed: bool,
    #[values(1, 2)] epochs: u64,
    #[values(MEMORY, BOTH)] backends: [StateBackend; 3],
) {
    let case = Case::read(query.parent().unwrap());
    if streamed && case.is_bounded_only() {
        return;
    }
    let rows = case.fold(saved_twice(&case, streamed, epochs, backends));
    if let Err(report) = compare::same_rows(&case.expected, &rows) {
        panic!(
            "{}, streamed: {streamed}, on {backends:?}, a savepoint after every {epochs} epochs: expected (<) and actual (>) rows differ: {report}",
            case.name
        );
    }
}

/// Runs a case in three attempts, the first two ended by a savepoint.
fn saved_twice(case: &Case, streamed: bool, epochs: u64, backends: [StateBackend; 3]) -> Vec<Row> {
    let script = script(case, streamed);
    let printed: Arc<Mutex<Vec<Row>>> = Arc::default();
    let files = MemoryFiles::default();
    let mut checkpoint: Option<Manifest> = None;
    for ((threads, is_last), backend) in [(1, false), (3, false), (2, true)].into_iter().zip(backends) {
        let begun = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
        let stop_after = (!is_last).then_some(begun + epochs);
        let outcome = attempt_of(case, &script, threads, backend, (checkpoint.take(), &files), stop_after, &printed);
        if outcome.finished {
            counted_as_undisturbed(case, &script, streamed, &outcome);
            return std::mem::take(&mut *printed.lock().unwrap());
        }
        checkpoint = outcome.checkpoint.map(|checkpoint| by_savepoint(&checkpoint, &script, &files));
    }
    panic!("{}: the last attempt runs to its end", case.name);
}

/// The same checkpoint, after it was a savepoint.
fn by_savepoint(checkpoint: &Manifest, script: &sql::Script, files: &MemoryFiles) -> Manifest {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let place = MemoryFiles::default();
        let graph = serde_json::to_value(&script.graph).unwrap();
        let description = Description { job_name: "case".into(), graph };
        savepoint::export_in_pieces(files, checkpoint, description, &place, PIECE_ROWS).await.unwrap();
        let saved = savepoint::open(&place).await.unwrap();
        let kept = script.graph.nodes.iter().map(|node| (node.id.clone(), vec![node.id.clone()])).collect();
        let (job, run, epoch) = (checkpoint.job.clone(), checkpoint.run.clone(), checkpoint.epoch + 1);
        let target = Target { job: job.clone(), run, epoch, kept };
        let manifest = savepoint::import_in_pieces(&place, &saved, &target, files, PIECE_ROWS).await.unwrap();
        Manifest::open(files, &manifest, &job, epoch).await.unwrap()
    })
}
