//! What a view leaves in the checkpoints of its run, to go on from: a base with all rows, and the changes of the epochs since.
//!
//! Each checkpoint adds the changes since the one before as a file; when those have become as large as the base, a new base is written
//! instead. So what is written for a checkpoint is in proportion to what has changed.

use engine::runtime::Place;
use engine::{Batch, Committable, RunError};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use state::FileRef;
use state::files;
use views::{Changes, ViewDefinition, ViewSnapshot, ViewTable};

use super::run_error;
use crate::epoch_rows::{decode, encode};

/// Bytes of changes that are kept in memory between two checkpoints. Beyond them the next checkpoint writes all rows.
const SINCE_BYTES_MAX: usize = 64 << 20;
/// Up to this size a base is not worth being replaced.
const BASE_BYTES_MIN: u64 = 1 << 20;

/// The checkpoints of one view.
pub struct Kept {
    place: Place,
    view: String,
    base: Option<(Base, FileRef)>,
    /// Changes since the base, oldest first.
    changes: Vec<FileRef>,
    /// Changes since the newest checkpoint; `None` if they are too large to be kept.
    since: Option<Vec<u8>>,
}

/// A committable's payload: of its files the first has the rows of this epoch, the others the changes since. It names none of them, so
/// that they can be moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Base {
    epoch: u64,
    watermark_us: Option<i64>,
    at_us: i64,
    dropped: u64,
}

/// Stands before the changes of an epoch.
#[derive(Serialize, Deserialize)]
struct EpochHead {
    epoch: u64,
    watermark_us: Option<i64>,
    at_us: i64,
    /// Of the committables, in their order.
    bytes: Vec<usize>,
}

impl Kept {
    pub fn new(place: Place, view: &str) -> Kept {
        Kept { place, view: view.to_owned(), base: None, changes: Vec::new(), since: Some(Vec::new()) }
    }

    /// The changes of an epoch were applied.
    pub fn applied(&mut self, epoch: u64, watermark_us: Option<i64>, at_us: i64, committables: &[Committable]) {
        let committables = if faults::broken("lose_changes_of_views") { &[] } else { committables };
        let Some(since) = &mut self.since else { return };
        let bytes: Vec<usize> = committables.iter().map(|committable| committable.payload.len()).collect();
        if since.len() + bytes.iter().sum::<usize>() > SINCE_BYTES_MAX {
            self.since = None;
            return;
        }
        let head = serde_json::to_vec(&EpochHead { epoch, watermark_us, at_us, bytes }).expect("numbers are JSON");
        since.extend_from_slice(&(head.len() as u64).to_le_bytes());
        since.extend_from_slice(&head);
        committables.iter().for_each(|committable| since.extend_from_slice(&committable.payload));
    }

    /// Writes what the checkpoint of the snapshot's epoch needs, and says what it is.
    pub async fn stage(&mut self, snapshot: &ViewSnapshot) -> Result<Committable, RunError> {
        let since = self.since.replace(Vec::new());
        let changed: u64 = self.changes.iter().map(|file| file.bytes).sum();
        let name = |folder: &str| self.place.name(folder, snapshot.epoch, &self.view, 0);
        faults::reach("view.stage.before").await?;
        match (since, &self.base) {
            (Some(since), Some((_, rows))) if changed + since.len() as u64 <= rows.bytes.max(BASE_BYTES_MIN) => {
                let file = files::put(&*self.place.files, &name("view-changes"), since.into()).await?;
                self.changes.push(file);
            }
            _ => {
                let batches = snapshot.batches().map(|rows| rows.map(Batch::inserts));
                let batches = batches.collect::<Result<Vec<_>, _>>().map_err(run_error)?;
                let rows = encode(&snapshot.schema, &batches)
                    .map_err(|error| RunError::internal(format!("cannot write the rows of a view: {error}")))?;
                let rows = files::put(&*self.place.files, &name("view"), rows.into()).await?;
                let ViewSnapshot { epoch, watermark_us, at_us, dropped, .. } = *snapshot;
                self.base = Some((Base { epoch, watermark_us, at_us, dropped }, rows));
                self.changes = Vec::new();
            }
        }
        faults::reach("view.stage.after").await?;
        let (base, rows) = self.base.as_ref().expect("there is a base now, if there was none");
        Ok(Committable {
            rows: 0,
            payload: serde_json::to_vec(base).expect("numbers are JSON"),
            files: std::iter::once(rows).chain(&self.changes).cloned().collect(),
        })
    }

    /// The view as a checkpoint left it.
    pub async fn restore(&mut self, definition: &ViewDefinition, staged: &Committable) -> Result<ViewTable, RunError> {
        let unreadable = |reason: String| {
            RunError::external(
                "checkpoint_corrupt",
                format!("what the checkpoint keeps of view {}: {reason}", self.view),
            )
        };
        let base: Base = serde_json::from_slice(&staged.payload).map_err(|error| unreadable(error.to_string()))?;
        let schema = expr::arrow_schema(&definition.columns);
        let rows = |bytes: &[u8]| decode(&schema, bytes).map_err(|error| unreadable(error.to_string()));
        let changes = |batch: Batch| Changes { rows: batch.rows, kinds: batch.kinds };
        let from = &*self.place.files;
        let [first, later @ ..] = &staged.files[..] else { return Err(unreadable("it has no rows".into())) };
        let all: Vec<Changes> = rows(&files::get(from, first).await?)?.into_iter().map(changes).collect();
        let mut table =
            ViewTable::restored(definition.clone(), base.epoch, base.watermark_us, base.at_us, base.dropped, &all)
                .map_err(run_error)?;
        for file in try_join_all(later.iter().map(|file| files::get(from, file))).await? {
            let mut rest = &file[..];
            while !rest.is_empty() {
                let (head, payloads) =
                    take_epoch(&mut rest).ok_or_else(|| unreadable("it ends within an epoch".into()))?;
                let mut applied = Vec::new();
                for payload in payloads {
                    applied.extend(rows(payload)?.into_iter().map(changes));
                }
                table.apply(head.epoch, head.watermark_us, head.at_us, &applied).map_err(run_error)?;
            }
        }
        (self.base, self.changes) = (Some((base, first.clone())), later.to_vec());
        Ok(table)
    }
}

/// The changes of the next epoch, as [`Kept::applied`] has put them down.
fn take_epoch<'a>(rest: &mut &'a [u8]) -> Option<(EpochHead, Vec<&'a [u8]>)> {
    let (length, after) = rest.split_first_chunk::<8>()?;
    let (head, mut after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let head: EpochHead = serde_json::from_slice(head).ok()?;
    let mut payloads = Vec::new();
    for bytes in &head.bytes {
        let (payload, next) = after.split_at_checked(*bytes)?;
        payloads.push(payload);
        after = next;
    }
    *rest = after;
    Some((head, payloads))
}
