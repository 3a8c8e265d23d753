//! Parquet: what a footer says, and rows from row groups.
//!
//! Columns are matched by their exact names. Of an object store, whole column chunks of the wanted columns are fetched, one row group ahead
//! of the decoder; a local file is read page by page, so that buffers are small and used again.
//! A file may be damaged in any way: each length and offset is checked before it is used, and a panic of the decoder is an error of the file.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::columns::{Predicate, batch, coerced, first_misfit, fits, microseconds, plain_schema};
use super::error::{FileError, Result};
use super::store::{FileMeta, OpenFile, Store};
use crate::types::type_word;

/// The footer of a file, and where the table's columns are in it.
pub struct Footer {
    pub file: FileMeta,
    shown: String,
    metadata: ArrowReaderMetadata,
    /// For each wanted column, its root column in the file; `None` reads as NULL.
    roots: Vec<Option<usize>>,
    schema: SchemaRef,
}

/// Read at once from the end of a file: holds most footers whole.
const TAIL_BYTES: u64 = 64 * 1024;
/// A footer longer than this is damage: it would be that of some million column chunks.
const FOOTER_MAX_BYTES: u64 = 512 << 20;

fn invalid(shown: &str, place: impl Into<String>, reason: impl Into<String>) -> FileError {
    FileError::InputFileInvalid { file: shown.to_string(), place: place.into(), reason: reason.into() }
}

/// Runs a decoder over bytes that may be anything.
fn guarded<T>(shown: &str, place: impl Fn() -> String, decode: impl FnOnce() -> Result<T, String>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(reason)) => Err(invalid(shown, place(), reason)),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Err(invalid(
                shown,
                place(),
                format!("its content is damaged ({})", text.unwrap_or_else(|| "the decoder gave up".into())),
            ))
        }
    }
}

impl Footer {
    /// Reads the footer and finds the columns of `schema`, the wanted ones.
    pub async fn read(store: &Store, file: &FileMeta, schema: &SchemaRef) -> Result<Footer> {
        let shown = store.shown(&file.path);
        let not_parquet = |reason: &str| Err(invalid(&shown, "", reason));
        if file.size < 12 {
            return not_parquet(if file.size == 0 {
                "it is empty, a Parquet file is not"
            } else {
                "it is too short for a Parquet file"
            });
        }
        let tail_start = file.size - file.size.min(TAIL_BYTES);
        let mut tail = one(store.read_ranges(file, vec![tail_start..file.size]).await?);
        let end = tail.len() - 8;
        match &tail[end + 4..] {
            b"PAR1" => {}
            b"PARE" => return not_parquet("it is encrypted, which is not supported"),
            _ => return not_parquet("it is no Parquet file, or it is cut off: it does not end in PAR1"),
        }
        let length = u64::from((&tail[end..]).get_u32_le());
        if length + 12 > file.size || length > FOOTER_MAX_BYTES {
            return not_parquet(&format!("its footer of {length} bytes does not fit into its {} bytes", file.size));
        }
        let start = file.size - 8 - length;
        if start < tail_start {
            tail = one(store.read_ranges(file, vec![start..file.size]).await?);
        }
        let footer = tail.slice(tail.len() - 8 - length as usize..tail.len() - 8);
        let metadata = guarded(
            &shown,
            || " (footer)".into(),
            || arrow_metadata(&footer, file).map_err(|error| error.to_string()),
        )?;
        let roots = matched(&shown, metadata.schema(), schema)?;
        Ok(Footer { file: file.clone(), shown, metadata, roots, schema: schema.clone() })
    }

    fn groups(&self) -> &[RowGroupMetaData] {
        self.metadata.metadata().row_groups()
    }

    /// Rows of each row group.
    pub fn rows(&self) -> Vec<u64> {
        self.groups().iter().map(|group| group.num_rows() as u64).collect()
    }

    /// Bytes of each row group, all columns.
    pub fn bytes(&self) -> Vec<u64> {
        self.groups().iter().map(|group| group.compressed_size().max(0) as u64).collect()
    }

    /// The least value of a time column in each row group in microseconds; `None` where it is not proved.
    pub fn min_times(&self, column: &str) -> Vec<Option<i64>> {
        let proved = || -> Option<Vec<Option<i64>>> {
            let (mins, _) = self.statistics(column)?;
            let mins = microseconds(&mins)?;
            Some(mins.iter().collect())
        };
        let found = catch_unwind(AssertUnwindSafe(proved)).ok().flatten();
        found.unwrap_or_else(|| vec![None; self.groups().len()])
    }

    /// Which row groups may hold rows for which all predicates are true.
    pub fn may_match(&self, predicate: &[Predicate]) -> Vec<bool> {
        let mut kept = vec![true; self.groups().len()];
        for one in predicate {
            let proved = catch_unwind(AssertUnwindSafe(|| {
                let (mins, maxes) = self.statistics(&one.column)?;
                one.excludes(&mins, &maxes).ok()
            }));
            if let Ok(Some(excluded)) = proved {
                // NULL is "not known": the group stays.
                kept.iter_mut().zip(excluded.iter()).for_each(|(kept, excluded)| *kept &= excluded != Some(true));
            }
        }
        kept
    }

    /// Bounds of a wanted column per row group, in the table's type. NULL where there are none, or where they cannot be trusted.
    fn statistics(&self, column: &str) -> Option<(ArrayRef, ArrayRef)> {
        let wanted = self.schema.index_of(column).ok()?;
        let root = self.roots[wanted]?;
        let to = self.schema.field(wanted).data_type();
        // NaN is outside of the bounds of floats; the order of nested values is nobody's.
        if to.is_floating() || to.is_nested() {
            return None;
        }
        let file_schema = self.metadata.schema();
        let name = file_schema.field(root).name();
        let converter = StatisticsConverter::try_new(name, file_schema, self.metadata.parquet_schema()).ok()?;
        let leaf = converter.parquet_column_index()?;
        let old = self.groups().iter().any(|group| {
            // Written before the order of bytes was defined.
            let column = group.column(leaf);
            let bytes = matches!(
                column.column_type(),
                PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY | PhysicalType::INT96
            );
            bytes && column.statistics().is_some_and(|statistics| statistics.is_min_max_deprecated())
        });
        if old {
            return None;
        }
        let bound = |values: parquet::errors::Result<ArrayRef>| coerced(&values.ok()?, to).ok();
        Some((bound(converter.row_group_mins(self.groups()))?, bound(converter.row_group_maxes(self.groups()))?))
    }

    fn mask(&self) -> ProjectionMask {
        ProjectionMask::roots(self.metadata.parquet_schema(), self.roots.iter().flatten().copied())
    }

    /// Fetches what is needed of a row group: the column chunks of the wanted columns.
    pub async fn fetch(self: &Arc<Self>, store: &Store, group: usize) -> Result<FetchedGroup> {
        let mask = self.mask();
        let chunks = self.groups()[group].columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let ranges: Vec<Range<u64>> =
            chunks.map(|(_, chunk)| chunk.byte_range()).map(|(start, length)| start..start + length).collect();
        let chunks = match store.open_local(&self.file).await? {
            Some(file) => {
                ranges.iter().for_each(|range| file.expect(range.clone()));
                Chunks::local(file, ranges)
            }
            None => {
                let bytes = store.read_ranges(&self.file, ranges.clone()).await?;
                Chunks::memory(self.file.size, ranges.iter().map(|range| range.start).zip(bytes).collect())
            }
        };
        Ok(FetchedGroup { footer: self.clone(), group, chunks })
    }
}

fn one(mut bytes: Vec<Bytes>) -> Bytes {
    bytes.pop().expect("one range was asked for")
}

fn arrow_metadata(footer: &[u8], file: &FileMeta) -> parquet::errors::Result<ArrowReaderMetadata> {
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(footer)?);
    for group in metadata.row_groups() {
        let columns = group.columns().iter();
        if group.num_rows() < 0 || columns.clone().any(|column| column.num_values() < 0) {
            return Err(ParquetError::General("it has a negative number of rows".into()));
        }
        for column in columns {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            if start < 0 || column.compressed_size() < 0 || end.is_none_or(|end| end as u64 > file.size) {
                return Err(ParquetError::General("it refers to bytes outside of the file".into()));
            }
        }
    }
    // Twice, because the types that the file declares must be known to ask for plain ones.
    let declared = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())?;
    let plain = plain_schema(declared.schema());
    if plain == *declared.schema() {
        return Ok(declared);
    }
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new().with_schema(plain))
}

/// Finds the wanted columns among those of the file.
fn matched(shown: &str, have: &Schema, want: &Schema) -> Result<Vec<Option<usize>>> {
    let mismatch = |reason: String| Err(FileError::InputSchemaMismatch { file: shown.to_string(), reason });
    let mut roots = Vec::with_capacity(want.fields().len());
    for field in want.fields() {
        let name = field.name();
        let named = |test: &dyn Fn(&str) -> bool| have.fields().iter().position(|column| test(column.name()));
        let Some(root) = named(&|column| column == name) else {
            if let Some(similar) = named(&|column| column.eq_ignore_ascii_case(name)) {
                let similar = have.field(similar).name();
                return mismatch(format!("it has no column {name}, but it has {similar}; names are compared exactly"));
            }
            if field.is_nullable() {
                roots.push(None);
                continue;
            }
            let names: Vec<&str> = have.fields().iter().map(|column| column.name().as_str()).collect();
            return mismatch(format!(
                "it lacks column {name}, which is declared NOT NULL; {}",
                graph::suggestion(name, names)
            ));
        };
        let (from, to) = (have.field(root).data_type(), field.data_type());
        if !fits(from, to) {
            return mismatch(format!("column {name} is {} there and {} in the table", type_word(from), type_word(to)));
        }
        roots.push(Some(root));
    }
    Ok(roots)
}

/// The bytes of a row group's wanted columns.
pub struct FetchedGroup {
    footer: Arc<Footer>,
    group: usize,
    chunks: Chunks,
}

impl FetchedGroup {
    /// Rows from `skip` on, in batches; blocks while decoding. Numbers for messages count from the file's first row of the group.
    pub fn decode(self, skip: u64, batch_rows: usize) -> Result<DecodedGroup> {
        let FetchedGroup { footer, group, chunks } = self;
        let rows = footer.groups()[group].num_rows() as u64;
        let remaining = rows.saturating_sub(skip);
        // Without columns there is nothing to decode: the footer says how many rows there are.
        let reader = if footer.roots.iter().all(Option::is_none) {
            None
        } else {
            let build = || {
                let chunks = chunks.clone();
                let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, footer.metadata.clone());
                let builder =
                    builder.with_row_groups(vec![group]).with_projection(footer.mask()).with_batch_size(batch_rows);
                builder.with_offset(skip as usize).build().map_err(|error| error.to_string())
            };
            Some(chunks.blamed(guarded(&footer.shown, || format!(" (row group {group})"), build))?)
        };
        Ok(DecodedGroup { footer, group, chunks, reader, rows: remaining, row: skip, batch_rows })
    }
}

/// Iterates over the rows of a row group.
pub struct DecodedGroup {
    footer: Arc<Footer>,
    group: usize,
    chunks: Chunks,
    reader: Option<ParquetRecordBatchReader>,
    /// Rows to come.
    rows: u64,
    /// Rows of the group before the next batch.
    row: u64,
    batch_rows: usize,
}

impl DecodedGroup {
    /// The next rows in the table's columns; `None` at the end of the group.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let (footer, group) = (self.footer.clone(), self.group);
        let place = || format!(" (row group {group})");
        let next = match &mut self.reader {
            Some(reader) => {
                let next =
                    guarded(&footer.shown, place, || reader.next().transpose().map_err(|error| error.to_string()));
                self.chunks.blamed(next)?
            }
            None => {
                let rows = self.rows.min(self.batch_rows as u64) as usize;
                (rows > 0).then(|| batch(&Arc::new(Schema::empty()), vec![], rows))
            }
        };
        let count = next.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        if count > self.rows || (next.is_none() && self.rows > 0) {
            let reason =
                format!("its number of rows is not the {} that the footer says", footer.groups()[group].num_rows());
            return Err(invalid(&footer.shown, place(), reason));
        }
        let Some(decoded) = next else { return Ok(None) };
        // Before anybody sees a row that another content of the file may have given.
        self.chunks.check()?;
        let rows = self.convert(&decoded)?;
        self.rows -= count;
        self.row += count;
        Ok(Some(rows))
    }

    fn convert(&self, decoded: &RecordBatch) -> Result<RecordBatch> {
        let footer = &self.footer;
        let count = decoded.num_rows();
        let file = || footer.shown.clone();
        // The decoder gives the chosen roots in the file's order.
        let mut chosen: Vec<usize> = footer.roots.iter().flatten().copied().collect();
        chosen.sort_unstable();
        chosen.dedup();
        let place: HashMap<usize, usize> = chosen.iter().enumerate().map(|(at, root)| (*root, at)).collect();
        let before: u64 =
            footer.groups()[..self.group].iter().map(|group| group.num_rows() as u64).sum::<u64>() + self.row;
        let columns = footer.schema.fields().iter().zip(&footer.roots).map(|(field, root)| {
            let (name, to) = (field.name(), field.data_type());
            let Some(root) = root else { return Ok(new_null_array(to, count)) };
            let column = decoded.column(place[root]);
            let column = coerced(column, to).map_err(|error| FileError::InputOutOfRange {
                file: file(),
                column: name.clone(),
                row: before + first_misfit(column, to) as u64,
                data_type: type_word(to),
                reason: error.to_string(),
            })?;
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let row = (0..count).find(|row| column.is_null(*row)).unwrap_or(0) as u64;
                return Err(FileError::InputNull { file: file(), column: name.clone(), row: before + row });
            }
            Ok(column)
        });
        Ok(batch(&footer.schema, columns.collect::<Result<_>>()?, count))
    }
}

/// The column chunks of a file that are wanted; what lies outside of them is not there.
#[derive(Clone)]
struct Chunks(Arc<Place>);

enum Place {
    Memory {
        size: u64,
        /// Offset and bytes, ascending.
        chunks: Vec<(u64, Bytes)>,
    },
    Local {
        file: OpenFile,
        /// Ascending.
        chunks: Vec<Range<u64>>,
        /// Why reading failed: the decoder reports it as damage.
        failure: Mutex<Option<io::Error>>,
    },
}

/// Read at once where a page's header is expected: holds most headers whole.
const HEADER_BYTES: u64 = 512;

impl Chunks {
    fn memory(size: u64, mut chunks: Vec<(u64, Bytes)>) -> Chunks {
        chunks.sort_by_key(|(start, _)| *start);
        Chunks(Arc::new(Place::Memory { size, chunks }))
    }

    fn local(file: OpenFile, mut chunks: Vec<Range<u64>>) -> Chunks {
        chunks.sort_by_key(|range| range.start);
        Chunks(Arc::new(Place::Local { file, chunks, failure: Mutex::new(None) }))
    }

    /// Bytes from `start` on: `length`, all of them, or as many as are cheap to get, at least one.
    fn bytes(&self, start: u64, length: Option<u64>) -> io::Result<Bytes> {
        let outside = || {
            let place = start.saturating_add(length.unwrap_or(0));
            io::Error::other(format!("a page at byte {place} is outside of its column"))
        };
        if length == Some(0) {
            return Ok(Bytes::new());
        }
        match &*self.0 {
            Place::Memory { chunks, .. } => {
                let at = chunks.partition_point(|(offset, _)| *offset <= start);
                let (offset, bytes) = at.checked_sub(1).map(|at| &chunks[at]).ok_or_else(outside)?;
                let from = (start - offset) as usize;
                let to = length.map_or(Some(bytes.len()), |length| from.checked_add(length as usize));
                match to {
                    Some(to) if from < to && to <= bytes.len() => Ok(bytes.slice(from..to)),
                    _ => Err(outside()),
                }
            }
            Place::Local { file, chunks, failure } => {
                let at = chunks.partition_point(|range| range.start <= start);
                let end = at.checked_sub(1).map(|at| chunks[at].end).filter(|end| start < *end).ok_or_else(outside)?;
                let to = start.saturating_add(length.unwrap_or(HEADER_BYTES.min(end - start)));
                if to > end {
                    return Err(outside());
                }
                file.read(start..to).map_err(|error| {
                    let told = io::Error::new(error.kind(), error.to_string());
                    failure.lock().expect("nobody panics with it").get_or_insert(error);
                    told
                })
            }
        }
    }

    /// Says of what a decoder reports as damage whether it was the reading that failed, or a file that changed under it.
    fn blamed<T>(&self, decoded: Result<T>) -> Result<T> {
        if decoded.is_err()
            && let Place::Local { file, failure, .. } = &*self.0
        {
            if let Some(error) = failure.lock().expect("nobody panics with it").take() {
                return Err(file.failed(&error));
            }
            file.check()?;
        }
        decoded
    }

    /// Fails if the file has changed while it was read.
    fn check(&self) -> Result<()> {
        match &*self.0 {
            Place::Local { file, .. } => file.check(),
            Place::Memory { .. } => Ok(()),
        }
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match &*self.0 {
            Place::Memory { size, .. } => *size,
            Place::Local { chunks, .. } => chunks.last().map_or(0, |range| range.end),
        }
    }
}

impl ChunkReader for Chunks {
    type T = HeaderReader;

    fn get_read(&self, start: u64) -> parquet::errors::Result<HeaderReader> {
        Ok(HeaderReader { chunks: self.clone(), at: start, bytes: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.bytes(start, Some(length as u64)).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads on from a place, a little at a time.
struct HeaderReader {
    chunks: Chunks,
    at: u64,
    bytes: Bytes,
}

impl Read for HeaderReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() && !into.is_empty() {
            self.bytes = self.chunks.bytes(self.at, None)?;
            self.at += self.bytes.len() as u64;
        }
        let count = into.len().min(self.bytes.len());
        self.bytes.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Sums of rows before each row group, with the total at the end.
pub fn starts(rows: &[u64]) -> Vec<u64> {
    let sums = rows.iter().scan(0, |sum, rows| {
        *sum += rows;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}
