//! Files as a bounded source.
//!
//! A split is a file, some row groups of a Parquet file, or a stretch of lines of a JSON file; none depends on the parallelism. Per reader
//! one task fetches bytes, bounded, ahead of one thread that decodes them; both end when the reader's future is dropped.
//! A position is a row number in the split (Parquet), or the offset and number of the next record (JSON, CSV).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use engine::{
    BadRecord, Position, RowPositions, RunError, Source, SourceContext, SourceHints, SourceOutput, Split, SplitStart,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use graph::{FileFormat, FilesystemOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::columns::{Constant, Predicate, batch};
use super::error::{FileError, Result};
use super::listing::{self, partition_value};
use super::parquet::{FetchedGroup, Footer, starts};
use super::reach::Reach;
use super::store::{FileMeta, Location};
use super::text::{self, TextDecoder, TextPiece};
use expr::arrow_schema;

/// Row groups are put into one split up to this size, all columns.
const SPLIT_BYTES: u64 = 16 << 20;
/// Footers are read this many at a time.
const FOOTERS_AT_ONCE: usize = 16;
/// Batches that a decoder may be ahead of the engine.
const BATCHES_AHEAD: usize = 2;

/// Files of one table.
pub struct FilesystemSource {
    pub(super) location: Location,
    pub(super) options: FilesystemOptions,
    /// Names of all columns that stand in the files.
    pub(super) file_columns: Vec<String>,
    /// The wanted columns, in order.
    schema: SchemaRef,
    /// Those of them that stand in the files.
    pub(super) file_schema: SchemaRef,
    /// For each wanted column, its place in `file_schema`; `None` for partition columns.
    places: Vec<Option<usize>>,
    time_column: Option<String>,
    predicate: Vec<Predicate>,
    /// Of the process that listed the splits; others read them again.
    footers: Mutex<HashMap<String, Arc<Footer>>>,
}

/// What a split's `spec` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FileSplit {
    pub file: FileMeta,
    pub part: Part,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Whole,
    /// Row groups, the end exclusive.
    Groups(usize, usize),
    /// Whole lines between two offsets.
    Bytes(u64, u64),
}

/// What the decoding thread is given, split by split.
enum Piece {
    /// A split begins here.
    Begin {
        at: usize,
        constants: Vec<Option<Constant>>,
        text: Option<Box<TextDecoder>>,
    },
    /// Rows of a row group from `skip` on; `first` is the number in the split of its first row.
    Group {
        group: Box<FetchedGroup>,
        first: u64,
        skip: u64,
    },
    Text(TextPiece),
    End,
}

/// What a reader of files gives.
pub enum Decoded {
    Rows { split: u32, rows: RecordBatch, positions: RowPositions, bad: Vec<BadRecord>, next: Position },
    Finished { split: u32 },
}

impl FilesystemSource {
    /// # Errors
    /// The location is not allowed, an option is wrong.
    pub fn open(
        node: &graph::Source,
        options: &FilesystemOptions,
        hints: SourceHints,
        reach: &Reach,
    ) -> Result<FilesystemSource> {
        let location = Location::open(options, reach)?;
        // A local path is resolved for its check alone: it may be a pattern.
        if location.store.is_local() && !location.path.contains(['*', '?', '[']) {
            location.store.local(&location.path)?;
        }
        FilesystemSource::over(location, node, options, hints)
    }

    /// A source over a store that is open already.
    pub fn over(
        location: Location,
        node: &graph::Source,
        options: &FilesystemOptions,
        hints: SourceHints,
    ) -> Result<FilesystemSource> {
        let schema = arrow_schema(&hints.columns);
        let is_partition = |name: &String| node.partition_by.contains(name);
        let in_files: Vec<usize> =
            (0..schema.fields().len()).filter(|at| !is_partition(schema.field(*at).name())).collect();
        let places = (0..schema.fields().len()).map(|at| in_files.binary_search(&at).ok()).collect();
        let file_schema = Arc::new(schema.project(&in_files).expect("the columns are those of the schema"));
        let file_columns =
            node.columns.iter().map(|column| column.name.clone()).filter(|name| !is_partition(name)).collect();
        let source = FilesystemSource {
            location,
            options: options.clone(),
            file_columns,
            predicate: Predicate::usable(&hints.pushed, &schema),
            schema,
            file_schema,
            places,
            time_column: hints.time_column,
            footers: Mutex::default(),
        };
        if source.options.format != FileFormat::Parquet {
            text::decoder(&source)?;
        }
        Ok(source)
    }

    fn shown(&self, file: &FileMeta) -> String {
        self.location.store.shown(&file.path)
    }

    /// The values of the partition columns of a file, per wanted column.
    fn constants(&self, file: &FileMeta) -> Result<Vec<Option<Constant>>> {
        let constant = |(at, place): (usize, &Option<usize>)| {
            if place.is_some() {
                return Ok(None);
            }
            let field = self.schema.field(at);
            let mismatch = |reason: String| FileError::InputSchemaMismatch { file: self.shown(file), reason };
            let value = partition_value(file.named(), field.name())
                .ok_or_else(|| mismatch(format!("none of its directories is named {}=...", field.name())))?;
            if value.is_none() && !field.is_nullable() {
                return Err(mismatch(format!(
                    "its directory says that {} is NULL, but it is declared NOT NULL",
                    field.name()
                )));
            }
            let parsed = Constant::parse(value.as_deref(), field.data_type());
            parsed
                .map(Some)
                .map_err(|error| mismatch(format!("the value of {} in its directory is wrong: {error}", field.name())))
        };
        self.places.iter().enumerate().map(constant).collect()
    }

    /// Whether the partition columns prove that no row of the file is wanted.
    fn pruned(&self, constants: &[Option<Constant>]) -> bool {
        self.predicate.iter().any(|one| {
            let constant = self.schema.index_of(&one.column).ok().and_then(|at| constants[at].as_ref());
            constant.is_some_and(|constant| {
                let value = constant.value();
                value.is_null(0)
                    || one.excludes(value, value).is_ok_and(|excluded| excluded.value(0) && excluded.is_valid(0))
            })
        })
    }

    async fn footer(&self, file: &FileMeta) -> Result<Arc<Footer>> {
        let known = |footers: &HashMap<String, Arc<Footer>>| {
            footers.get(&file.path).filter(|footer| footer.file == *file).cloned()
        };
        let lock = || self.footers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(footer) = known(&lock()) {
            return Ok(footer);
        }
        let footer = Arc::new(Footer::read(&self.location.store, file, &self.file_schema).await?);
        lock().insert(file.path.clone(), footer.clone());
        Ok(footer)
    }

    async fn list_splits(&self) -> Result<Vec<Split>> {
        let files = listing::list(&self.location).await?;
        let mut wanted = Vec::with_capacity(files.len());
        for file in files {
            if !self.pruned(&self.constants(&file)?) {
                wanted.push(file);
            }
        }
        let splits = wanted.into_iter().map(|file| self.file_splits(file));
        let splits: Vec<Vec<Split>> = futures::stream::iter(splits).buffered(FOOTERS_AT_ONCE).try_collect().await?;
        let mut splits: Vec<Split> = splits.into_iter().flatten().collect();
        // Reading in the order of time lets the watermark follow what is proved.
        if splits.iter().all(|split| split.min_time_us.is_some()) {
            splits.sort_by_key(|split| split.min_time_us);
        }
        Ok(splits)
    }

    async fn file_splits(&self, file: FileMeta) -> Result<Vec<Split>> {
        let name = self.shown(&file);
        let split = |id: String, part: Part| {
            let spec = serde_json::to_value(FileSplit { file: file.clone(), part }).expect("a split is plain data");
            Split { id, spec, min_time_us: None, rows: None, bytes: Some(file.size) }
        };
        if self.options.format != FileFormat::Parquet {
            text::check_name(&name)?;
            let cuts = match self.options.format {
                FileFormat::Json => text::line_cuts(&self.location.store, &file).await?,
                _ => vec![],
            };
            if cuts.is_empty() {
                return Ok(vec![split(name, Part::Whole)]);
            }
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([file.size]);
            return Ok(starts
                .zip(ends)
                .map(|(start, end)| Split {
                    bytes: Some(end - start),
                    ..split(format!("{name}@{start}"), Part::Bytes(start, end))
                })
                .collect());
        }
        let footer = self.footer(&file).await?;
        let (rows, bytes) = (footer.rows(), footer.bytes());
        let min_times = match &self.time_column {
            Some(column) if self.file_schema.index_of(column).is_ok() => footer.min_times(column),
            _ => vec![None; rows.len()],
        };
        let ranges = group_ranges(&bytes);
        let whole = ranges.len() == 1;
        let splits = ranges.into_iter().map(|(from, to)| Split {
            min_time_us: min_times[from..to]
                .iter()
                .copied()
                .collect::<Option<Vec<i64>>>()
                .and_then(|times| times.into_iter().min()),
            rows: Some(rows[from..to].iter().sum()),
            bytes: Some(bytes[from..to].iter().sum()),
            ..split(if whole { name.clone() } else { format!("{name}#{from}") }, Part::Groups(from, to))
        });
        Ok(splits.collect())
    }

    /// Fetches all splits in order, as far ahead as the channel lets it.
    async fn fetch(self: Arc<Self>, splits: Vec<SplitStart>, out: mpsc::Sender<Result<Piece>>) {
        for (at, start) in splits.iter().enumerate() {
            if let Err(error) = self.fetch_split(at, start, &out).await {
                let _ = out.send(Err(error)).await;
                return;
            }
        }
    }

    async fn fetch_split(&self, at: usize, start: &SplitStart, out: &mpsc::Sender<Result<Piece>>) -> Result<()> {
        let spec: FileSplit =
            serde_json::from_value(start.split.spec.clone()).map_err(|error| wrong_split(start, &error.to_string()))?;
        let constants = self.constants(&spec.file)?;
        // Each piece waits for room before it is fetched: what is fetched and not yet decoded is one piece per place in the channel.
        let Ok(room) = out.reserve().await else { return Ok(()) };
        let (store, file) = (&self.location.store, &spec.file);
        match spec.part {
            Part::Groups(from, to) => {
                room.send(Ok(Piece::Begin { at, constants, text: None }));
                let footer = self.footer(file).await?;
                let rows = footer.rows();
                if to > rows.len() || from > to {
                    return Err(wrong_split(start, "the file has fewer row groups"));
                }
                let firsts = starts(&rows[from..to]);
                let total = firsts[firsts.len() - 1];
                let done = match &start.position {
                    None => 0,
                    Some(Position::End) => total,
                    Some(Position::At(text)) => {
                        text.parse().map_err(|_| wrong_split(start, "its position is no row number"))?
                    }
                };
                let wanted = footer.may_match(&self.predicate);
                for (group, first) in (from..to).zip(firsts) {
                    if !wanted[group] || first + rows[group] <= done {
                        continue;
                    }
                    let Ok(room) = out.reserve().await else { return Ok(()) };
                    let fetched = Box::new(footer.fetch(store, group).await?);
                    room.send(Ok(Piece::Group { group: fetched, first, skip: done.saturating_sub(first) }));
                }
                let _ = out.send(Ok(Piece::End)).await;
            }
            part => {
                let (from, to) = match part {
                    Part::Bytes(from, to) => (from, to),
                    _ => (0, file.size),
                };
                let resume = text::resume_point(&start.position, from)
                    .ok_or_else(|| wrong_split(start, "its position is no offset"))?;
                let decoder = TextDecoder::new(self, start, from)?;
                room.send(Ok(Piece::Begin { at, constants, text: Some(Box::new(decoder)) }));
                if !text::fetch(store, file, (from, to), resume, self.needs_header(), |piece| {
                    let out = out.clone();
                    async move { out.send(Ok(Piece::Text(piece))).await.is_ok() }
                })
                .await?
                {
                    return Ok(());
                }
                let _ = out.send(Ok(Piece::End)).await;
            }
        }
        Ok(())
    }

    fn needs_header(&self) -> bool {
        self.options.format == FileFormat::Csv && self.options.csv_header
    }

    /// The wanted columns in order: those of the file, and the partition's.
    fn assembled(&self, rows: RecordBatch, constants: &mut [Option<Constant>]) -> RecordBatch {
        let count = rows.num_rows();
        let columns = self.places.iter().zip(constants).map(|(place, constant)| match (place, constant) {
            (Some(place), _) => rows.column(*place).clone(),
            (None, Some(constant)) => constant.rows(count),
            (None, None) => unreachable!("a column is in the file or in its directories"),
        });
        batch(&self.schema, columns.collect::<Vec<ArrayRef>>(), count)
    }

    fn decode_pieces(
        &self,
        splits: &[SplitStart],
        batch_rows: usize,
        mut pieces: mpsc::Receiver<Result<Piece>>,
        give: &mut dyn FnMut(Decoded) -> bool,
    ) -> Result<()> {
        let mut constants: Vec<Option<Constant>> = Vec::new();
        let mut split = 0;
        let mut text: Option<Box<TextDecoder>> = None;
        while let Some(piece) = pieces.blocking_recv() {
            match piece? {
                Piece::Begin { at, constants: of_file, text: decoder } => {
                    split = splits[at].number;
                    constants = of_file;
                    text = decoder;
                }
                Piece::Group { group, first, skip } => {
                    let mut row = first + skip;
                    let mut group = group.decode(skip, batch_rows)?;
                    while let Some(rows) = group.next_batch()? {
                        let positions = RowPositions::From(row as i64);
                        row += rows.num_rows() as u64;
                        let rows = self.assembled(rows, &mut constants);
                        let next = Position::At(row.to_string());
                        if !give(Decoded::Rows { split, rows, positions, bad: vec![], next }) {
                            return Ok(());
                        }
                    }
                }
                Piece::Text(piece) => {
                    let decoder = text.as_mut().expect("a text split begins with its decoder");
                    let mut heard = true;
                    decoder.feed(piece, batch_rows, &mut |rows, positions, bad, next| {
                        let rows = self.assembled(rows, &mut constants);
                        heard = give(Decoded::Rows { split, rows, positions, bad, next });
                        heard
                    })?;
                    if !heard {
                        return Ok(());
                    }
                }
                Piece::End => {
                    if !give(Decoded::Finished { split }) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Consecutive row groups of about [`SPLIT_BYTES`], at least one split.
fn group_ranges(bytes: &[u64]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let (mut from, mut sum) = (0, 0);
    for (at, bytes) in bytes.iter().enumerate() {
        if at > from && sum + bytes > SPLIT_BYTES {
            ranges.push((from, at));
            (from, sum) = (at, 0);
        }
        sum += bytes;
    }
    ranges.push((from, bytes.len()));
    ranges
}

fn wrong_split(start: &SplitStart, reason: &str) -> FileError {
    FileError::InputChanged {
        file: start.split.id.clone(),
        before: "the one that was listed".into(),
        after: format!("another: {reason}"),
    }
}

impl Source for FilesystemSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>, RunError>> {
        async { Ok(self.list_splits().await?) }.boxed()
    }

    fn read(
        self: Arc<Self>,
        context: SourceContext,
        mut out: SourceOutput,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        async move {
            let runtime = tokio::runtime::Handle::current();
            let (alive, mut gone) = oneshot::channel::<()>();
            let (pieces, _fetching) = self.clone().fetching(&context.splits);
            // From the decoding thread straight to the engine: another hop would wake another thread for every batch.
            let decoding = tokio::task::spawn_blocking(move || -> Result<(), RunError> {
                let mut sent = Ok(());
                let mut give = |decoded| {
                    let send = async {
                        match decoded {
                            Decoded::Rows { split, rows, positions, bad, next } => {
                                out.rows(split, rows, positions, bad, next).await
                            }
                            Decoded::Finished { split } => out.finished(split),
                        }
                    };
                    sent = runtime.block_on(async {
                        tokio::select! {
                            biased;
                            _ = &mut gone => Err(RunError::internal("the reader was dropped")),
                            sent = send => sent,
                        }
                    });
                    sent.is_ok()
                };
                self.decode(&context.splits, context.batch_rows, pieces, &mut give)?;
                sent
            });
            let ended = decoding.await;
            drop(alive);
            ended.unwrap_or_else(|error| Err(RunError::internal(format!("decoding stopped: {error}"))))
        }
        .boxed()
    }
}

/// What the splits of a reader give, decoded a little ahead. Dropping it ends the fetching, and with it the decoding.
pub struct Events {
    decoded: mpsc::Receiver<Result<Decoded>>,
    _tasks: JoinSet<()>,
}

impl Events {
    pub async fn next(&mut self) -> Option<Result<Decoded>> {
        self.decoded.recv().await
    }
}

impl FilesystemSource {
    /// Reads splits in their order; needs a tokio runtime around it.
    pub fn decoded(self: Arc<Self>, splits: Vec<SplitStart>, batch_rows: usize) -> Events {
        let (decoded_in, decoded) = mpsc::channel(BATCHES_AHEAD);
        let (pieces, mut tasks) = self.clone().fetching(&splits);
        tasks.spawn_blocking(move || {
            let mut give = |decoded| decoded_in.blocking_send(Ok(decoded)).is_ok();
            if let Err(error) = self.decode(&splits, batch_rows, pieces, &mut give) {
                // Nobody listens when the run is over.
                let _ = decoded_in.blocking_send(Err(error));
            }
        });
        Events { decoded, _tasks: tasks }
    }

    /// Starts to fetch the splits; dropping the set ends it.
    fn fetching(self: Arc<Self>, splits: &[SplitStart]) -> (mpsc::Receiver<Result<Piece>>, JoinSet<()>) {
        let (pieces_in, pieces) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(self.fetch(splits.to_vec(), pieces_in));
        (pieces, tasks)
    }

    /// Decodes, on a thread that may block, until the pieces end or `give` says that nobody listens.
    fn decode(
        &self,
        splits: &[SplitStart],
        batch_rows: usize,
        pieces: mpsc::Receiver<Result<Piece>>,
        give: &mut dyn FnMut(Decoded) -> bool,
    ) -> Result<()> {
        let decode = AssertUnwindSafe(|| self.decode_pieces(splits, batch_rows.max(1), pieces, give));
        catch_unwind(decode).unwrap_or_else(|_| {
            let (file, place) = (self.location.shown(), String::new());
            Err(FileError::InputFileInvalid { file, place, reason: "its content is damaged".into() })
        })
    }

    /// What decides the rows besides the files themselves; for caches.
    pub fn identity(&self) -> serde_json::Value {
        let mut options = self.options.clone();
        (options.s3_access_key, options.s3_secret_key) = (None, None);
        let columns: Vec<String> = self.schema.fields().iter().map(|field| format!("{field:?}")).collect();
        serde_json::json!([options, columns, self.file_columns])
    }
}
