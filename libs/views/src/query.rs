//! Questions to a view: some columns of the rows that fulfil a condition, in an order, a page of them.
//!
//! The rows pass batch by batch; what is kept is a page and all before it, so memory is bounded by [`LIMIT_MAX`] and [`OFFSET_MAX`] and not
//! by the view. The answer is the same whatever batches the rows lie in: what the order leaves open is decided by the key, and in a view
//! without one by the arrival.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use expr::{Compiled, Env};
use graph::{Column, DataType, Schema};
use serde::{Deserialize, Serialize};

use crate::chunk::{CHUNK_ROWS, Chunk};
use crate::definition::ViewDefinition;
use crate::error::ViewError;

/// Rows of an answer, unless the query says otherwise.
pub const DEFAULT_LIMIT: u64 = 1_000;
/// Rows of an answer, at most.
pub const LIMIT_MAX: u64 = 100_000;
/// Rows before a page, at most.
pub const OFFSET_MAX: u64 = 1_000_000;
/// Length of a filter, at most; `expr` limits its complexity.
pub const FILTER_BYTES_MAX: usize = 64 << 10;

/// A question to one view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// In this order; empty: all. Names are matched exactly, else without case where only one fits.
    pub columns: Vec<String>,
    /// SQL text over the columns of the view; rows for which it is true.
    pub filter: Option<String>,
    /// Rows that are equal in all of these, and all rows if there are none, stand in the order of the key, or of their arrival.
    pub order_by: Vec<OrderBy>,
    /// Default: [`DEFAULT_LIMIT`].
    pub limit: u64,
    /// Rows to leave out at the beginning.
    pub offset: u64,
}

/// A column to order by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBy {
    pub column: String,
    #[serde(default)]
    pub descending: bool,
    /// Default: NULL is the smallest value.
    #[serde(default)]
    pub nulls_first: Option<bool>,
}

impl Default for Query {
    fn default() -> Query {
        Query { columns: vec![], filter: None, order_by: vec![], limit: DEFAULT_LIMIT, offset: 0 }
    }
}

/// What a query gives.
#[derive(Clone, Debug)]
pub struct Answer {
    /// With the columns that were asked for.
    pub rows: RecordBatch,
    /// Whether rows follow behind the limit.
    pub more: bool,
}

/// Asks rows that come batch by batch.
pub(crate) fn run<C: Borrow<Chunk>>(
    definition: &ViewDefinition,
    chunks: impl Iterator<Item = Result<C, ViewError>>,
    query: &Query,
) -> Result<Answer, ViewError> {
    let plan = Plan::new(definition, query)?;
    let (offset, limit) = (query.offset as usize, query.limit as usize);
    // One more tells whether there are more.
    let wanted = offset + limit + 1;
    let mut found = Found { plan: &plan, wanted, batches: vec![], rows: 0, sorted: 0 };
    for chunk in chunks {
        if plan.order.is_empty() && found.rows >= wanted {
            break;
        }
        found.add(plan.select(chunk?.borrow())?)?;
    }
    let rows = found.finish()?;
    let from = offset.min(rows.num_rows());
    let page = rows.slice(from, limit.min(rows.num_rows() - from));
    Ok(Answer { rows: page.project(&plan.output)?, more: rows.num_rows() > offset + limit })
}

/// A query over one definition, checked.
struct Plan {
    /// Positions in the view of the columns that are read at all.
    read: Vec<usize>,
    /// These columns.
    schema: SchemaRef,
    filter: Option<Compiled>,
    /// Positions among what is read.
    order: Vec<(usize, SortField)>,
    output: Vec<usize>,
}

impl Plan {
    fn new(definition: &ViewDefinition, query: &Query) -> Result<Plan, ViewError> {
        if query.limit > LIMIT_MAX {
            return Err(ViewError::Limit(query.limit));
        }
        if query.offset > OFFSET_MAX {
            return Err(ViewError::Offset(query.offset));
        }
        let columns = &definition.columns;
        let mut output = Vec::new();
        for name in &query.columns {
            output.push(position(definition, name)?);
        }
        if output.is_empty() {
            output.extend(0..columns.columns.len());
        }
        let mut order = Vec::new();
        for by in &query.order_by {
            let nulls_first = by.nulls_first.unwrap_or(!by.descending);
            order.push((position(definition, &by.column)?, by.descending, nulls_first));
        }
        // The rest of the order, so that there is only one.
        for name in &definition.key {
            let key = position(definition, name)?;
            if !order.iter().any(|(column, ..)| *column == key) {
                order.push((key, false, true));
            }
        }
        let arrow = expr::arrow_schema(columns);
        let sorted = |(column, descending, nulls_first): &(usize, bool, bool)| {
            let options = arrow::compute::SortOptions { descending: *descending, nulls_first: *nulls_first };
            let field = SortField::new_with_options(arrow.field(*column).data_type().clone(), options);
            let known = &columns.columns[*column];
            if matches!(known.data_type, DataType::Map(..))
                || !RowConverter::supports_fields(std::slice::from_ref(&field))
            {
                let (view, column) = (definition.name.clone(), known.name.clone());
                return Err(ViewError::NoOrder { view, column, data_type: known.data_type.to_string() });
            }
            Ok((*column, field))
        };
        let order: Vec<(usize, SortField)> = order.iter().map(sorted).collect::<Result<_, _>>()?;
        let filter = query.filter.as_deref().filter(|text| !text.trim().is_empty());
        let mut read: Vec<usize> = output.iter().copied().chain(order.iter().map(|(column, _)| *column)).collect();
        if let Some(text) = filter {
            read.extend(compiled(text, columns)?.columns());
        }
        read.sort_unstable();
        read.dedup();
        let narrow = Schema::new(read.iter().map(|column| columns.columns[*column].clone()).collect());
        let schema: ArrowSchema = arrow.project(&read)?;
        // Again, over the columns that are read.
        let filter = filter.map(|text| compiled(text, &narrow)).transpose()?;
        let among = |column: usize| read.binary_search(&column).expect("what is asked for is read");
        let order = order.into_iter().map(|(column, field)| (among(column), field)).collect();
        let output = output.into_iter().map(among).collect();
        Ok(Plan { schema: Arc::new(schema), filter, order, output, read })
    }

    /// The rows of a chunk that fulfil the condition.
    fn select(&self, chunk: &Chunk) -> Result<RecordBatch, ViewError> {
        // What has gone is left out first: a condition may fail for it.
        let rows = chunk.project(&self.read)?;
        let Some(filter) = &self.filter else { return Ok(rows) };
        let mask = filter.evaluate_filter(&rows).map_err(|error| ViewError::FilterFailed(error.message))?;
        Ok(filter_record_batch(&rows, &mask)?)
    }
}

fn position(definition: &ViewDefinition, name: &str) -> Result<usize, ViewError> {
    let columns = &definition.columns;
    if let Some(exact) = columns.index_of(name) {
        return Ok(exact);
    }
    let mut similar = (0..columns.columns.len()).filter(|at| columns.columns[*at].name.eq_ignore_ascii_case(name));
    match (similar.next(), similar.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(ViewError::UnknownColumn {
            view: definition.name.clone(),
            column: name.chars().take(100).collect(),
            hint: graph::suggestion(name, columns.columns.iter().map(|Column { name, .. }| name.as_str())),
        }),
    }
}

fn compiled(text: &str, columns: &Schema) -> Result<Compiled, ViewError> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(ViewError::FilterTooLong(text.len()));
    }
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as i64);
    let env = Env { now_us: Arc::new(AtomicI64::new(now_us)), overflow_wrap: false };
    let filter = expr::compile(text, columns, &env).map_err(ViewError::Filter)?;
    match filter.data_type() {
        DataType::Boolean => Ok(filter),
        other => Err(ViewError::FilterType(other.clone())),
    }
}

/// The first rows in the order, of those that have come so far.
struct Found<'a> {
    plan: &'a Plan,
    wanted: usize,
    batches: Vec<RecordBatch>,
    rows: usize,
    /// Rows that were sorted last and are the first of `batches`.
    sorted: usize,
}

impl Found<'_> {
    fn add(&mut self, rows: RecordBatch) -> Result<(), ViewError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.rows += rows.num_rows();
        self.batches.push(rows);
        // As many again as are kept, so that sorting costs the same per row whatever is wanted.
        if !self.plan.order.is_empty() && self.rows >= self.sorted + self.wanted.max(CHUNK_ROWS) {
            self.sort()?;
        }
        Ok(())
    }

    fn sort(&mut self) -> Result<(), ViewError> {
        let all = concat_batches(&self.plan.schema, &self.batches)?;
        let fields = self.plan.order.iter().map(|(_, field)| field.clone()).collect();
        let columns: Vec<ArrayRef> =
            self.plan.order.iter().map(|(column, _)| state::canonical_floats(all.column(*column))).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        // Positions decide between equals: what came first stays first.
        let compare = |a: &u32, b: &u32| rows.row(*a as usize).cmp(&rows.row(*b as usize)).then(a.cmp(b));
        if order.len() > self.wanted {
            order.select_nth_unstable_by(self.wanted - 1, compare);
            order.truncate(self.wanted);
        }
        order.sort_unstable_by(compare);
        let sorted = take_record_batch(&all, &UInt32Array::from(order))?;
        (self.rows, self.sorted) = (sorted.num_rows(), sorted.num_rows());
        self.batches = vec![sorted];
        Ok(())
    }

    fn finish(mut self) -> Result<RecordBatch, ViewError> {
        if self.plan.order.is_empty() || self.batches.is_empty() {
            return Ok(concat_batches(&self.plan.schema, &self.batches)?);
        }
        self.sort()?;
        Ok(self.batches.remove(0))
    }
}
