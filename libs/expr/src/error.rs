//! Why an expression was refused, and why a row could not be computed.

use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::tokenizer;

/// First line and column, then the line and column after the last character; both count from 1, in characters.
pub type Span = (u64, u64, u64, u64);

/// An expression that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// Stable, snake_case.
    pub code: &'static str,
    /// What was attempted, on what, and why not.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Where in the text.
    pub span: Option<Span>,
}

impl ExprError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> ExprError {
        ExprError { code, message: message.into(), hint: None, span: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> ExprError {
        self.hint = Some(hint.into());
        self
    }

    /// The innermost span stays: it was known first.
    pub(crate) fn at(mut self, span: tokenizer::Span) -> ExprError {
        self.span = self.span.or(known(span));
        self
    }
}

fn known(span: tokenizer::Span) -> Option<Span> {
    (span != tokenizer::Span::empty()).then_some((span.start.line, span.start.column, span.end.line, span.end.column))
}

/// A batch that cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The first row of the batch for which the expression fails.
    pub row: Option<usize>,
    pub message: String,
}

/// A failure of a kernel, said without the wrapping of the libraries it passes through.
pub(crate) fn fault(message: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(message.into())
}

/// The text of an error of Arrow or DataFusion as a user should see it.
pub(crate) fn plain_message(error: &DataFusionError) -> String {
    use arrow::error::ArrowError;
    match error {
        DataFusionError::Execution(message)
        | DataFusionError::Plan(message)
        | DataFusionError::NotImplemented(message) => message.clone(),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => plain_message(inner),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => "division by zero".to_string(),
            ArrowError::ArithmeticOverflow(what) => format!("integer overflow: {what}"),
            ArrowError::ComputeError(message)
            | ArrowError::CastError(message)
            | ArrowError::InvalidArgumentError(message) => message.clone(),
            other => other.to_string(),
        },
        other => other.strip_backtrace(),
    }
}
