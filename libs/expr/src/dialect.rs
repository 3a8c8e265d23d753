//! The SQL dialect of expressions: Flink's lexical rules.

use datafusion_sql::sqlparser::ast::{
    AccessExpr, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, Subscript, TrimWhereField,
};
use datafusion_sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Span, Token};

use crate::steps::step;

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

    /// Forms of Flink that the parser does not read by itself.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if let Err(error) = step() {
            return Some(Err(error));
        }
        let first = parser.peek_token();
        let Token::Word(word) = &first.token else { return None };
        if word.quote_style.is_some() {
            return None;
        }
        match (word.keyword, parser.peek_nth_token(1).token) {
            (Keyword::MAP, Token::LBracket) => Some(map(parser)),
            (Keyword::TRIM, Token::LParen) if is_blank_trim(parser) => Some(blank_trim(parser)),
            (Keyword::CAST | Keyword::TRY_CAST, Token::LParen) => Some(cast(parser)),
            _ => None,
        }
    }

    /// `a IS [NOT] DISTINCT FROM b` binds as a comparison does: the parser alone would take all that follows for `b`, with AND and OR.
    fn parse_infix(&self, parser: &mut Parser, left: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let negated = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            false
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            true
        } else {
            return refused_between(parser).map(Err);
        };
        let right = parser.parse_subexpr(self.prec_value(Precedence::Eq));
        let left = Box::new(left.clone());
        Some(right.map(Box::new).map(|right| match negated {
            false => Expr::IsDistinctFrom(left, right),
            true => Expr::IsNotDistinctFrom(left, right),
        }))
    }
}

/// Parts a refusal's text from what to write instead, in what the parser is given as one text.
pub const HINT_MARK: char = '\u{1}';

/// A syntax error of ours, in the form of the parser's own.
pub fn syntax_error(message: &str, hint: &str, at: Span) -> ParserError {
    let start = at.start;
    ParserError::ParserError(format!("{message}{HINT_MARK}{hint} at Line: {}, Column: {}", start.line, start.column))
}

/// `MAP[key, value, ...]`, as a call of MAP; `map[key]` is an element of the column map.
fn map(parser: &mut Parser) -> Result<Expr, ParserError> {
    let name = parser.next_token();
    parser.expect_token(&Token::LBracket)?;
    let mut items = Vec::new();
    if parser.peek_token().token != Token::RBracket {
        items = parser.parse_comma_separated(Parser::parse_expr)?;
    }
    parser.expect_token(&Token::RBracket)?;
    if let [_] = items[..] {
        let Token::Word(word) = name.token else { unreachable!("a keyword was peeked") };
        return Ok(Expr::CompoundFieldAccess {
            root: Box::new(Expr::Identifier(Ident::with_span(name.span, word.value))),
            access_chain: vec![AccessExpr::Subscript(Subscript::Index { index: items.remove(0) })],
        });
    }
    let args = items.into_iter().map(|item| FunctionArg::Unnamed(FunctionArgExpr::Expr(item))).collect();
    Ok(Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_span(name.span, "MAP")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }))
}

/// Whether `TRIM(LEADING FROM ...` comes: what is cut off is not named, so it is blanks.
fn is_blank_trim(parser: &Parser) -> bool {
    let keyword = |n| match parser.peek_nth_token(n).token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    matches!(keyword(2), Keyword::LEADING | Keyword::TRAILING | Keyword::BOTH) && keyword(3) == Keyword::FROM
}

fn blank_trim(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    let side: TrimWhereField = parser.parse_trim_where()?;
    parser.expect_keyword(Keyword::FROM)?;
    let expr = Box::new(parser.parse_expr()?);
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Trim { expr, trim_where: Some(side), trim_what: None, trim_characters: None })
}

/// `CAST(value AS type)`, also for the types that the parser does not know: `ROW<...>` and `MAP<...>`, alone or inside of others.
fn cast(parser: &mut Parser) -> Result<Expr, ParserError> {
    let kind = match parser.next_token().token {
        Token::Word(word) if word.keyword == Keyword::TRY_CAST => CastKind::TryCast,
        _ => CastKind::Cast,
    };
    parser.expect_token(&Token::LParen)?;
    let expr = Box::new(parser.parse_expr()?);
    parser.expect_keyword(Keyword::AS)?;
    let data_type = match parser.peek_token().token {
        Token::Word(word)
            if word.quote_style.is_none()
                && ["ROW", "MAP", "ARRAY", "MULTISET"].contains(&word.value.to_uppercase().as_str()) =>
        {
            nested_type(parser)?
        }
        _ => parser.parse_data_type()?,
    };
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Cast { kind, expr, data_type, array: false, format: None })
}

/// The text of a type up to the parenthesis that closes the CAST; the binder reads it.
fn nested_type(parser: &mut Parser) -> Result<DataType, ParserError> {
    let mut text = String::new();
    let mut open = 0usize;
    loop {
        let token = parser.peek_token();
        match token.token {
            Token::LParen => open += 1,
            Token::RParen if open == 0 => break,
            Token::RParen => open -= 1,
            Token::EOF => return parser.expected("the end of the type", token),
            _ => {}
        }
        if !text.is_empty() && matches!(token.token, Token::Word(_) | Token::Number(..)) {
            text.push(' ');
        }
        text += &token.token.to_string();
        parser.next_token();
    }
    Ok(DataType::Custom(ObjectName::from(vec![Ident::new(text)]), Vec::new()))
}

fn refused_between(parser: &mut Parser) -> Option<ParserError> {
    let keyword = |n| match parser.peek_nth_token(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    };
    let at = usize::from(keyword(0) == "NOT");
    // An operand follows; otherwise it is a column of that name.
    let operand = match parser.peek_nth_token(at + 2).token {
        Token::Number(..) | Token::SingleQuotedString(_) | Token::LParen => true,
        Token::Word(word) => word.keyword != Keyword::AND,
        _ => false,
    };
    let symmetric = operand && keyword(at) == "BETWEEN" && keyword(at + 1) == "SYMMETRIC";
    symmetric.then(|| {
        let hint = "write x BETWEEN LEAST(a, b) AND GREATEST(a, b)";
        syntax_error("BETWEEN SYMMETRIC is not supported", hint, parser.peek_nth_token(at + 1).span)
    })
}
