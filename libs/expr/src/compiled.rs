//! From text to an expression that runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion_common::DataFusionError;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use graph::{DataType, Schema};

use crate::bind::Binder;
use crate::dialect::{ExprDialect, HINT_MARK};
use crate::error::{EvalError, ExprError, plain_message};
use crate::faults;
use crate::limits::{PARSER_RECURSION, check_tokens, too_complex};
use crate::physical::booleans;
use crate::steps::bounded;
use crate::types::{arrow_schema, arrow_type};

/// What an expression stands in, apart from its columns.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// What now() gives, in microseconds since 1970 UTC. Whoever runs the expression sets it once per epoch.
    pub now_us: Arc<AtomicI64>,
    /// Integer overflow wraps instead of failing.
    pub overflow_wrap: bool,
}

/// A typed expression over the columns of one schema. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    pub(crate) node: Arc<dyn PhysicalExpr>,
    pub(crate) data_type: DataType,
    pub(crate) nullable: bool,
    pub(crate) column: Option<usize>,
    pub(crate) columns: Vec<usize>,
    pub(crate) volatile: bool,
    pub(crate) processing_time: bool,
    /// The column, if the expression only casts a timestamp to a finer precision: a time attribute stays one.
    pub(crate) widened_time: Option<usize>,
    pub(crate) input: SchemaRef,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.node, self.data_type, if self.nullable { "" } else { " NOT NULL" })
    }
}

impl Compiled {
    /// The SQL type of the result.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether the result may be NULL.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// The position of the column, if the expression is a bare column.
    pub fn column(&self) -> Option<usize> {
        self.column
    }

    /// The positions of the input columns that are read, ascending.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether the value depends on the clock: it may differ when the same row is computed again.
    pub fn volatile(&self) -> bool {
        self.volatile
    }

    /// Whether PROCTIME() is read.
    pub fn processing_time(&self) -> bool {
        self.processing_time
    }

    /// The expression as DataFusion's, over the Arrow schema of the input.
    pub fn physical(&self) -> &Arc<dyn PhysicalExpr> {
        &self.node
    }

    /// One value per row, in the Arrow type of [`Self::data_type`]. The batch has the input's columns, in the input's order; those that are not
    /// in [`Self::columns`] are not looked at. Fails with the first row that cannot be computed.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, EvalError> {
        self.run(rows).map_err(|error| self.explained(rows, &error))
    }

    /// For which rows a BOOLEAN expression is true: NULL counts as false, and the result has no nulls.
    pub fn evaluate_filter(&self, rows: &RecordBatch) -> Result<BooleanArray, EvalError> {
        let value = self.node.evaluate(rows).and_then(|value| booleans(value, rows.num_rows()));
        let value = value.map_err(|error| self.explained(rows, &error))?;
        Ok(match value.nulls() {
            Some(nulls) => BooleanArray::new(value.values() & nulls.inner(), None),
            None => value,
        })
    }

    fn run(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let array = match self.node.evaluate(rows)? {
            ColumnarValue::Array(array) => array,
            ColumnarValue::Scalar(value) => value.to_array_of_size(rows.num_rows())?,
        };
        debug_assert_eq!(array.len(), rows.num_rows(), "{self:?} gave another number of rows");
        debug_assert_eq!(array.data_type(), &arrow_type(&self.data_type), "{self:?} gave another type");
        Ok(array)
    }

    /// The error of the first row that fails: the kernels do not know rows, so halves are computed until one row is left.
    fn explained(&self, rows: &RecordBatch, error: &DataFusionError) -> EvalError {
        let (mut from, mut to) = (0, rows.num_rows());
        let fails = |from: usize, to: usize| self.run(&rows.slice(from, to - from)).err();
        if to == 0 {
            return EvalError { row: None, message: plain_message(error) };
        }
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            match fails(from, middle) {
                Some(_) => to = middle,
                None => from = middle,
            }
        }
        match fails(from, to) {
            Some(error) => EvalError { row: Some(from), message: plain_message(&error) },
            None => EvalError { row: None, message: plain_message(error) },
        }
    }

    /// The Arrow schema that batches are expected in.
    pub fn input(&self) -> &SchemaRef {
        &self.input
    }
}

/// Compiles SQL text over the columns of `input`.
///
/// Names of columns are matched exactly, else case-insensitively where only one fits. The result has an SQL type that can stand on an edge;
/// an untyped NULL or an interval is refused.
pub fn compile(text: &str, input: &Schema, env: &Env) -> Result<Compiled, ExprError> {
    compile_ast(&parse(text)?, input, env)
}

/// Compiles a parsed expression; spans are those of the tree. Whoever parsed it has passed its tokens through [`check_tokens`].
pub fn compile_ast(expr: &ast::Expr, input: &Schema, env: &Env) -> Result<Compiled, ExprError> {
    Binder::new(input, arrow_schema(input), env).compile(expr)
}

/// The same, with every error of the expression: of its parts, those that do not follow from one another.
pub fn compile_all(expr: &ast::Expr, input: &Schema, env: &Env) -> Result<Compiled, Vec<ExprError>> {
    compile_ast(expr, input, env).map_err(|error| faults::all(error, expr, input, env))
}

/// The text of a cast that does what INSERT does with a value of another type.
pub fn cast(text: &str, to: &DataType) -> String {
    format!("CAST({text} AS {to})")
}

/// Reads one expression; nothing may follow it.
pub(crate) fn parse(text: &str) -> Result<ast::Expr, ExprError> {
    let dialect = ExprDialect;
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|error| {
        let at = error.location;
        ExprError {
            span: Some((at.line, at.column, at.line, at.column + 1)),
            ..ExprError::new("syntax_error", error.message)
        }
    })?;
    check_tokens(&tokens)?;
    let count = tokens.len();
    let end = tokens.last().map_or(Location::new(1, 1), |token| token.span.end);
    let mut parser = Parser::new(&dialect).with_recursion_limit(PARSER_RECURSION).with_tokens_with_locations(tokens);
    let parsed = bounded(count, || parser.parse_expr());
    let next = parser.peek_token();
    let expr = parsed.map_err(|error| match error {
        ParserError::RecursionLimitExceeded => too_complex("the expression nests too deep".into(), next.span),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            // The parser's own place is in the message; where it has none, the text ended too early.
            let place = message.rfind(" at Line: ").and_then(|at| located(&message[at..]).map(|span| (at, span)));
            let (text, span) = match place {
                Some((at, span)) => (&message[..at], span),
                None => (message.as_str(), (end.line, end.column, end.line, end.column + 1)),
            };
            let text = text.replace("found: EOF", "but the expression ends");
            let (text, hint) = match text.split_once(HINT_MARK) {
                Some((text, hint)) => (text.to_string(), Some(hint.to_string())),
                None => (text, None),
            };
            ExprError { span: Some(span), hint, ..ExprError::new("syntax_error", text) }
        }
    })?;
    match next.token {
        Token::EOF => Ok(expr),
        token => Err(ExprError::new("syntax_error", format!("the expression ends before {token}")).at(next.span)),
    }
}

/// The place in ` at Line: 1, Column: 7`.
fn located(text: &str) -> Option<(u64, u64, u64, u64)> {
    let (line, column) = text.strip_prefix(" at Line: ")?.split_once(", Column: ")?;
    let at = Location::new(line.parse().ok()?, column.parse().ok()?);
    Some((at.line, at.column, at.line, at.column + 1))
}
