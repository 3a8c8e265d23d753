//! Every case with restarts: at an epoch the whole dataflow is dropped and built anew with another parallelism, from snapshots of
//! sources, operators and sinks. What was committed in all must be the golden result. With state on disk all is there that can be, because
//! there is next to no memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use connectors::{AllowedRoots, PrintedRows, Registry};
use engine::RowKind;
use engine::runtime::{Alone, Durable, Outcome, Progress, RestorePoint, RunRequest, Surroundings, Verb, run};
use formats::RecordEncoder;
use formats::json::{JsonOptions, Writer};
use graph::StateBackend;
use integration_tests::compare::{self, Row};
use rstest::rstest;
use state::{Manifest, MemoryFiles};
use tokio::sync::watch;

use super::cases::Case;

/// Threads of the attempts, in turn.
const THREADS: [u64; 3] = [3, 1, 2];

#[rstest]
fn a_restart_changes_nothing(
    #[files("cases/*/query.sql")] query: PathBuf,
    #[values(true, false)] streamed: bool,
    #[values(1, 2, 4)] epoch: u64,
    #[values(StateBackend::Memory, StateBackend::Rocksdb)] state: StateBackend,
) {
    let case = Case::read(query.parent().unwrap());
    if streamed && case.is_bounded_only() {
        return;
    }
    let rows = case.fold(with_restarts(&case, streamed, epoch, state));
    if let Err(report) = compare::same_rows(&case.expected, &rows) {
        panic!(
            "{}, streamed: {streamed}, state: {state:?}, restarted after epoch {epoch}: expected (<) and actual (>) rows differ: {report}",
            case.name
        );
    }
}

/// Runs a case in three attempts, the first two ended by a checkpoint.
fn with_restarts(case: &Case, streamed: bool, epoch: u64, state: StateBackend) -> Vec<Row> {
    let script = script(case, streamed);
    let printed: Arc<Mutex<Vec<Row>>> = Arc::default();
    let mut checkpoint: Option<Manifest> = None;
    let (files, mut on_disk) = (MemoryFiles::default(), 0);
    for (attempt, threads) in THREADS.into_iter().enumerate() {
        let stop_after = (attempt < 2).then_some(epoch + attempt as u64);
        let outcome = attempt_of(case, &script, threads, state, (checkpoint.take(), &files), stop_after, &printed);
        if outcome.finished {
            counted_as_undisturbed(case, &script, streamed, &outcome);
            break;
        }
        checkpoint = outcome.checkpoint;
        let parts = checkpoint.iter().flat_map(|manifest| &manifest.operators).flat_map(|operator| &operator.parts);
        on_disk += parts.map(|part| part.tables.len()).sum::<usize>();
    }
    // A checkpoint after the second epoch finds these at work.
    let is_at_work = ["cumulate_keys", "hop_keys", "session", "running_aggregate"].contains(&case.name.as_str());
    let expected = is_at_work && epoch == 2 && state == StateBackend::Rocksdb;
    assert!(on_disk > 0 || !expected, "{}: tables on disk are in checkpoints", case.name);
    assert!(checkpoint.is_none(), "{}: the last attempt runs to its end", case.name);
    std::mem::take(&mut *printed.lock().unwrap())
}

/// What a case says, over its own files.
pub fn script(case: &Case, streamed: bool) -> sql::Script {
    let text = std::fs::read_to_string(case.folder.join("query.sql")).unwrap();
    let mut overrides = Vec::new();
    for source in &case.sources {
        let mut option = |name: &str, value: String| overrides.push((source.table.clone(), name.to_string(), value));
        option("path", case.folder.join(&source.path).display().to_string());
        if streamed {
            option("connector", "replay".into());
            option("replay.splits", "3".into());
        }
    }
    sql::plan(&text, &sql::Options { overrides, ..sql::Options::default() })
        .unwrap_or_else(|problems| panic!("{}: {problems:?}", case.name))
}

/// # Panics
/// If a run that went on has counted other rows than one that was not disturbed.
pub fn counted_as_undisturbed(case: &Case, script: &sql::Script, streamed: bool, outcome: &Outcome) {
    assert_eq!(read(script, outcome), undisturbed(case, script, streamed), "{}: rows that were read", case.name);
}

/// What the sources of a run have counted, over all its attempts: rows in, filtered, dropped, dead. Nothing else became of a row but that it
/// was sent on.
fn read(script: &sql::Script, outcome: &Outcome) -> Vec<(String, [u64; 4])> {
    let is_source = |operator: &str| {
        script.graph.nodes.iter().any(|node| node.id == operator && matches!(node.operator, graph::Operator::Source(_)))
    };
    let sources = outcome.counts.iter().filter(|counts| is_source(&counts.operator));
    let mut read: Vec<(String, [u64; 4])> = sources
        .map(|counts| {
            let left_out = [counts.filtered, counts.dropped, counts.dead];
            let accounted = counts.rows_out + left_out.iter().sum::<u64>();
            assert_eq!(counts.rows_in, accounted, "{}: every row is accounted for: {counts:?}", counts.operator);
            (counts.operator.clone(), [counts.rows_in, left_out[0], left_out[1], left_out[2]])
        })
        .collect();
    read.sort();
    read
}

/// The same of a run that was not restarted.
fn undisturbed(case: &Case, script: &sql::Script, streamed: bool) -> Vec<(String, [u64; 4])> {
    type Known = BTreeMap<(String, bool), Vec<(String, [u64; 4])>>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let key = (case.name.clone(), streamed);
    if let Some(known) = KNOWN.lock().unwrap().get(&key) {
        return known.clone();
    }
    let outcome = attempt_of(
        case,
        script,
        THREADS[0],
        StateBackend::Memory,
        (None, &MemoryFiles::default()),
        None,
        &Arc::default(),
    );
    let read = read(script, &outcome);
    assert!(!read.is_empty(), "{}: a script reads something", case.name);
    KNOWN.lock().unwrap().insert(key, read.clone());
    read
}

/// Runs a case with so many threads, from a checkpoint if one is given, and to a later one if it is to stop there.
pub fn attempt_of(
    case: &Case,
    script: &sql::Script,
    threads: u64,
    state: StateBackend,
    (restore, files): (Option<Manifest>, &MemoryFiles),
    stop_after: Option<u64>,
    printed: &Arc<Mutex<Vec<Row>>>,
) -> Outcome {
    let mut settings = graph::Settings::from_options(script.settings.clone()).unwrap();
    settings.parallelism = threads;
    settings.state_backend = state;
    settings.state_memory_bytes = 1 << 10;
    // Each instance asks for a cut so often; three of them still cross five epochs.
    settings.epoch_every_rows = Some((case.rows() as u64 / 18).max(1));
    settings.watermark_interval = graph::Period::ZERO;
    let all = printed.clone();
    let on_print = Arc::new(move |rows: PrintedRows| all.lock().unwrap().extend(as_rows(&rows)));
    let connectors = Registry::new(AllowedRoots::new([&case.folder])).on_print(on_print);
    let request = RunRequest {
        run_id: case.name.clone(),
        generation: 1,
        graph: script.graph.clone(),
        settings,
        start: Default::default(),
        first_epoch: restore.as_ref().map_or(1, |manifest| manifest.epoch + 1),
        restore: restore.as_ref().map(RestorePoint::committed).into_iter().collect(),
        stop_after,
    };
    let (_verb, verb) = watch::channel(Verb::Run);
    let around = Surroundings {
        connectors: Arc::new(connectors),
        launch: None,
        verb,
        progress: watch::channel(Progress::default()).0,
        durable: Some(Durable { job: "job_case".into(), files: Arc::new(files.clone()), authority: Arc::new(Alone) }),
        asked: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ran = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), run(request, around)).await });
    ran.expect("an attempt ends within a minute")
        .unwrap_or_else(|error| panic!("{}: {error} {:?}", case.name, error.hint))
}

/// Printed rows as the program prints them with `-o json`.
fn as_rows(printed: &PrintedRows) -> Vec<Row> {
    let rows = match &printed.kinds {
        None => printed.rows.clone(),
        Some(kinds) => {
            let marks = kinds.values().iter().map(|kind| RowKind::from_code(*kind).mark());
            let mut fields = vec![Arc::new(Field::new("op", DataType::Utf8, false))];
            fields.extend(printed.rows.schema().fields().iter().cloned());
            let mut columns = vec![Arc::new(StringArray::from_iter_values(marks)) as ArrayRef];
            columns.extend(printed.rows.columns().iter().cloned());
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
        }
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::new(rows.schema(), JsonOptions::default()).unwrap();
    writer.encode(&rows, &mut bytes).unwrap();
    compare::rows(&String::from_utf8(bytes).unwrap(), "printed").unwrap()
}
