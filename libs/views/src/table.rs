//! A view while it is folded: epoch by epoch, by one owner.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt8Array};
use arrow::datatypes::SchemaRef;

use crate::append::Appended;
use crate::chunk::Chunk;
use crate::definition::{ViewDefinition, check_name};
use crate::error::ViewError;
use crate::keyed::Keyed;
use crate::snapshot::ViewSnapshot;

/// Rows of one batch and what happens to each.
#[derive(Clone, Debug)]
pub struct Changes {
    /// With the columns of the view.
    pub rows: RecordBatch,
    /// Per row 0 for an insert, 1 for the row before an update, 2 for the row after it, 3 for a deleted row; never NULL. `None`: all are
    /// inserts. Rows that go (1 and 3) are whole rows, not keys only.
    pub kinds: Option<UInt8Array>,
}

/// Whether a row of this kind comes; else it goes.
pub(crate) fn adds(kind: u8) -> bool {
    matches!(kind, 0 | 2)
}

/// The rows of a view as of its newest epoch. See [`Changes`] for what it takes, [`ViewTable::snapshot`] for what it gives.
pub struct ViewTable {
    definition: Arc<ViewDefinition>,
    schema: SchemaRef,
    fold: Fold,
    epoch: u64,
    watermark_us: Option<i64>,
    at_us: i64,
}

enum Fold {
    Keyed(Box<Keyed>),
    Appended(Appended),
}

impl ViewTable {
    /// Without rows, before the first epoch.
    ///
    /// # Errors
    /// The name, or a key column that is none or has no equality (MAP).
    pub fn new(definition: ViewDefinition) -> Result<ViewTable, ViewError> {
        check_name(&definition.name)?;
        let schema = expr::arrow_schema(&definition.columns);
        let fold = if definition.is_keyed() {
            let position = |name: &String| {
                definition.columns.index_of(name).ok_or_else(|| ViewError::Key {
                    view: definition.name.clone(),
                    column: name.clone(),
                    reason: "is no column of it".into(),
                })
            };
            let key = definition.key.iter().map(position).collect::<Result<_, _>>()?;
            Fold::Keyed(Box::new(Keyed::new(&definition.name, schema.clone(), key)?))
        } else {
            Fold::Appended(Appended::new(schema.clone(), definition.retention))
        };
        Ok(ViewTable { definition: Arc::new(definition), schema, fold, epoch: 0, watermark_us: None, at_us: 0 })
    }

    /// The view as it was after an epoch: `rows` are all of its rows, in the order of their arrival.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`apply`](Self::apply).
    pub fn restored(
        definition: ViewDefinition,
        epoch: u64,
        watermark_us: Option<i64>,
        at_us: i64,
        dropped: u64,
        rows: &[Changes],
    ) -> Result<ViewTable, ViewError> {
        let mut table = ViewTable::new(definition)?;
        if epoch > 0 {
            table.apply(epoch, watermark_us, at_us, rows)?;
        }
        if let Fold::Appended(appended) = &mut table.fold {
            appended.has_dropped(dropped);
        }
        Ok(table)
    }

    /// All changes of an epoch, in their order. `watermark_us`: how far event time had come at its end; `at_us`: the clock then. Both
    /// in microseconds since 1970.
    ///
    /// # Errors
    /// More bytes than the view may have, or rows that go from a view without a key. The table is then between two epochs, and of no
    /// further use; snapshots that were taken stay what they are.
    pub fn apply(
        &mut self,
        epoch: u64,
        watermark_us: Option<i64>,
        at_us: i64,
        changes: &[Changes],
    ) -> Result<(), ViewError> {
        assert!(epoch > self.epoch, "epochs are applied once, in their order");
        for change in changes {
            assert_eq!(change.rows.num_columns(), self.schema.fields().len(), "a change has the columns of its view");
        }
        match &mut self.fold {
            Fold::Keyed(keyed) => keyed.apply(changes)?,
            Fold::Appended(appended) => {
                let goes = |kinds: &UInt8Array| kinds.values().iter().any(|kind| !adds(*kind));
                if changes.iter().filter_map(|change| change.kinds.as_ref()).any(goes) {
                    return Err(ViewError::NotKeyed { view: self.definition.name.clone() });
                }
                appended.apply(changes.iter().map(|change| &change.rows), at_us)?;
            }
        }
        let max = self.definition.max_bytes;
        if self.bytes() > max
            && let Fold::Keyed(keyed) = &mut self.fold
        {
            keyed.join_all()?;
        }
        if self.bytes() > max {
            let (view, is_keyed) = (self.definition.name.clone(), self.definition.is_keyed());
            return Err(ViewError::TooLarge { view, bytes: self.bytes(), max, is_keyed });
        }
        (self.epoch, self.watermark_us, self.at_us) = (epoch, watermark_us, at_us);
        Ok(())
    }

    pub fn definition(&self) -> &Arc<ViewDefinition> {
        &self.definition
    }

    /// Number of the newest epoch; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn rows(&self) -> u64 {
        match &self.fold {
            Fold::Keyed(keyed) => keyed.rows(),
            Fold::Appended(appended) => appended.rows(),
        }
    }

    /// Rows that the retention has removed.
    pub fn dropped(&self) -> u64 {
        match &self.fold {
            Fold::Keyed(_) => 0,
            Fold::Appended(appended) => appended.dropped(),
        }
    }

    /// Memory of the rows and of the index over their keys.
    pub fn bytes(&self) -> u64 {
        match &self.fold {
            Fold::Keyed(keyed) => keyed.bytes(),
            Fold::Appended(appended) => appended.bytes(),
        }
    }

    /// What the view holds now. Copies no rows; later epochs do not change it.
    pub fn snapshot(&self) -> ViewSnapshot {
        let chunks: Vec<Chunk> = match &self.fold {
            Fold::Keyed(keyed) => keyed.chunks(),
            Fold::Appended(appended) => appended.chunks(),
        };
        ViewSnapshot {
            definition: self.definition.clone(),
            schema: self.schema.clone(),
            epoch: self.epoch,
            watermark_us: self.watermark_us,
            at_us: self.at_us,
            rows: self.rows(),
            bytes: self.bytes(),
            dropped: self.dropped(),
            chunks,
        }
    }
}
