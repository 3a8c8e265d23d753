//! The dialect of scripts: the expressions' dialect, and `TABLE t [PARTITION BY k]` as an argument of a window function.

use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
};
use datafusion_sql::sqlparser::dialect::Dialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use expr::ExprDialect;

/// The name of the function call that stands for `TABLE t [PARTITION BY k, ...]` in the syntax tree: the table, then the keys. No function
/// that a script calls can have it, because this dialect reads `TABLE` before a name as this form.
pub const TABLE_ARGUMENT: &str = "TABLE";

#[derive(Debug, Default)]
pub struct SqlDialect;

const BASE: ExprDialect = ExprDialect;

impl Dialect for SqlDialect {
    fn is_delimited_identifier_start(&self, c: char) -> bool {
        BASE.is_delimited_identifier_start(c)
    }

    fn is_identifier_start(&self, c: char) -> bool {
        BASE.is_identifier_start(c)
    }

    fn is_identifier_part(&self, c: char) -> bool {
        BASE.is_identifier_part(c)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        BASE.supports_filter_during_aggregation()
    }

    fn supports_unicode_string_literal(&self) -> bool {
        BASE.supports_unicode_string_literal()
    }

    fn supports_group_by_expr(&self) -> bool {
        BASE.supports_group_by_expr()
    }

    /// Only so that `FOR SYSTEM_TIME AS OF` is refused by name.
    fn supports_table_versioning(&self) -> bool {
        true
    }

    /// Only so that `MATCH_RECOGNIZE` is refused by name.
    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let token = parser.peek_token();
        let is_table =
            matches!(&token.token, Token::Word(word) if word.keyword == Keyword::TABLE && word.quote_style.is_none());
        if is_table && matches!(parser.peek_nth_token(1).token, Token::Word(_)) {
            return Some(table_argument(parser));
        }
        BASE.parse_prefix(parser)
    }

    fn parse_infix(&self, parser: &mut Parser, left: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        BASE.parse_infix(parser, left, precedence)
    }
}

fn table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    let table = parser.next_token();
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let parts = parser.parse_object_name(false)?.0.into_iter().filter_map(|part| part.as_ident().cloned()).collect();
    let mut args = vec![argument(Expr::CompoundIdentifier(parts))];
    if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        if parser.consume_token(&Token::LParen) {
            args.extend(parser.parse_comma_separated(Parser::parse_expr)?.into_iter().map(argument));
            parser.expect_token(&Token::RParen)?;
        } else {
            // Several keys stand in parentheses: the comma after a bare key ends the argument, as in Flink. A comma before another bare
            // name can only be a further key.
            args.push(argument(parser.parse_expr()?));
            while further_key(parser) {
                parser.expect_token(&Token::Comma)?;
                args.push(argument(parser.parse_expr()?));
            }
        }
    }
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Ok(Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_span(table.span, TABLE_ARGUMENT)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }))
}

/// Whether `, name ,` comes: after the keys there is always another argument, so a name between commas that no `(` or `=>` follows is a key.
fn further_key(parser: &Parser) -> bool {
    let at = |n| parser.peek_nth_token(n).token;
    matches!((at(0), at(1), at(2)), (Token::Comma, Token::Word(_), Token::Comma))
}
