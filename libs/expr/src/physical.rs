//! The nodes of our own among DataFusion's physical expressions: calls of kernels, AND/OR that stop early, and the clock.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Datum, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema as ArrowSchema, TimeUnit};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

use crate::error::fault;

/// An argument of a kernel: a value per row, or one value for all rows.
pub(crate) struct Arg {
    pub array: ArrayRef,
    /// The array has one value, which stands for every row.
    pub constant: bool,
}

impl Arg {
    /// The position in the array of a row's value.
    #[inline]
    pub fn at(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    /// The value of each row.
    pub fn expanded(&self, rows: usize) -> Result<ArrayRef> {
        match self.constant {
            true => Ok(compute::take(&self.array, &arrow::array::UInt32Array::from_value(0, rows), None)?),
            false => Ok(Arc::clone(&self.array)),
        }
    }
}

impl Datum for Arg {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array.as_ref(), self.constant)
    }
}

/// Computes a result per row from the arguments, of which at least one is not constant unless there is one row.
pub(crate) type Kernel = Arc<dyn Fn(&[Arg], usize) -> Result<ArrayRef> + Send + Sync>;

/// A function of its arguments, row by row.
pub(crate) struct Call {
    pub name: &'static str,
    pub args: Vec<Arc<dyn PhysicalExpr>>,
    pub kernel: Kernel,
    pub out: FieldRef,
}

impl Call {
    pub fn node(
        name: &'static str,
        args: Vec<Arc<dyn PhysicalExpr>>,
        out: ArrowType,
        nullable: bool,
        kernel: Kernel,
    ) -> Arc<dyn PhysicalExpr> {
        Arc::new(Call { name, args, kernel, out: Arc::new(Field::new(name, out, nullable)) })
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        for (at, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if at > 0 { ", " } else { "" })?;
        }
        f.write_str(")")
    }
}

// A kernel is a closure, which has no equality of its own: two calls are equal if they share it.
impl PartialEq for Call {
    fn eq(&self, other: &Call) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.out == other.out && self.args == other.args
    }
}

impl Eq for Call {}

impl Hash for Call {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.args.hash(state);
        self.out.hash(state);
    }
}

impl PhysicalExpr for Call {
    fn return_field(&self, _: &ArrowSchema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.out))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let mut constant = true;
        let mut args = Vec::with_capacity(self.args.len());
        for arg in &self.args {
            args.push(match arg.evaluate(batch)? {
                ColumnarValue::Array(array) => {
                    constant = false;
                    Arg { array, constant: false }
                }
                ColumnarValue::Scalar(value) => Arg { array: value.to_array()?, constant: true },
            });
        }
        let rows = if constant { 1 } else { batch.num_rows() };
        let array = (self.kernel)(&args, rows)?;
        assert_eq!(array.len(), rows, "the kernel of {} gave another number of rows", self.name);
        assert_eq!(array.data_type(), self.out.data_type(), "the kernel of {} gave another type", self.name);
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.args.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Call {
            name: self.name,
            args: children,
            kernel: Arc::clone(&self.kernel),
            out: Arc::clone(&self.out),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// AND or OR of many terms, from the left. A term that can fail is computed only for the rows that are still open after the terms before it,
/// so `b <> 0 AND a / b > 1` never divides by zero.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Logical {
    pub and: bool,
    /// The terms, and whether they can fail.
    pub terms: Vec<(Arc<dyn PhysicalExpr>, bool)>,
    pub nullable: bool,
}

impl fmt::Display for Logical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (term, _)) in self.terms.iter().enumerate() {
            let word = if self.and { " AND " } else { " OR " };
            write!(f, "{}({term})", if at > 0 { word } else { "" })?;
        }
        Ok(())
    }
}

impl PhysicalExpr for Logical {
    fn return_field(&self, _: &ArrowSchema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new("logical", ArrowType::Boolean, self.nullable)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let mut so_far: Option<BooleanArray> = None;
        for (term, fallible) in &self.terms {
            so_far = Some(match so_far {
                None => booleans(term.evaluate(batch)?, rows)?,
                Some(left) => {
                    // Rows that are decided: false for AND, true for OR.
                    let decided = decided(&left, !self.and);
                    if decided.count_set_bits() == rows {
                        return Ok(ColumnarValue::Array(Arc::new(left)));
                    }
                    let right = match *fallible && decided.count_set_bits() > 0 {
                        true => booleans(term.evaluate_selection(batch, &BooleanArray::new(!&decided, None))?, rows)?,
                        false => booleans(term.evaluate(batch)?, rows)?,
                    };
                    if self.and { compute::and_kleene(&left, &right)? } else { compute::or_kleene(&left, &right)? }
                }
            });
        }
        let result = so_far.ok_or_else(|| fault("AND and OR have terms"))?;
        Ok(ColumnarValue::Array(Arc::new(result)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.terms.iter().map(|(term, _)| term).collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let terms = children.into_iter().zip(&self.terms).map(|(child, (_, fallible))| (child, *fallible)).collect();
        Ok(Arc::new(Logical { and: self.and, terms, nullable: self.nullable }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an array is not null and equals `value`.
fn decided(array: &BooleanArray, value: bool) -> BooleanBuffer {
    let equal = if value { array.values().clone() } else { !array.values() };
    match array.nulls() {
        Some(nulls) => &equal & nulls.inner(),
        None => equal,
    }
}

/// The value of a predicate, one per row.
pub(crate) fn booleans(value: ColumnarValue, rows: usize) -> Result<BooleanArray> {
    match value {
        ColumnarValue::Array(array) => {
            let array = array.as_boolean_opt().ok_or_else(|| fault("a predicate gave no BOOLEAN"))?;
            Ok(array.clone())
        }
        ColumnarValue::Scalar(ScalarValue::Boolean(Some(value))) => {
            let buffer = if value { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) };
            Ok(BooleanArray::new(buffer, None))
        }
        ColumnarValue::Scalar(ScalarValue::Boolean(None) | ScalarValue::Null) => Ok(BooleanArray::new_null(rows)),
        ColumnarValue::Scalar(other) => Err(fault(format!("a predicate gave {}, not BOOLEAN", other.data_type()))),
    }
}

/// The clock of the epoch, as TIMESTAMP_LTZ(3) or TIMESTAMP(6) in UTC; never folded into a constant.
pub(crate) struct Now {
    pub now_us: Arc<AtomicI64>,
    /// A timestamp type of milliseconds or microseconds.
    pub out: ArrowType,
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("now()")
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("now()")
    }
}

impl PartialEq for Now {
    fn eq(&self, other: &Now) -> bool {
        Arc::ptr_eq(&self.now_us, &other.now_us) && self.out == other.out
    }
}

impl Eq for Now {}

impl Hash for Now {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.out.hash(state);
    }
}

impl PhysicalExpr for Now {
    fn return_field(&self, _: &ArrowSchema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new("now", self.out.clone(), false)))
    }

    fn evaluate(&self, _: &RecordBatch) -> Result<ColumnarValue> {
        let now_us = self.now_us.load(Ordering::Acquire);
        let array: ArrayRef = match &self.out {
            ArrowType::Timestamp(TimeUnit::Millisecond, zone) => Arc::new(
                TimestampMillisecondArray::from(vec![now_us.div_euclid(1_000)]).with_timezone_opt(zone.clone()),
            ),
            ArrowType::Timestamp(TimeUnit::Microsecond, zone) => {
                Arc::new(TimestampMicrosecondArray::from(vec![now_us]).with_timezone_opt(zone.clone()))
            }
            other => return Err(DataFusionError::Internal(format!("the clock has no {other}"))),
        };
        Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn is_volatile_node(&self) -> bool {
        true
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("now()")
    }
}
