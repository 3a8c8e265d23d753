//! The SQL dialect of expressions: Flink's lexical rules.

use datafusion_sql::sqlparser::dialect::Dialect;

/// Names are bare or in backquotes, texts in single quotes; `sql` builds its statement dialect on this one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExprDialect;

impl Dialect for ExprDialect {
    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '`'
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '$'
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }
}
