//! Reading CREATE TABLE and CREATE VIEW: Flink's forms, which no dialect of the parser knows.

use datafusion_sql::sqlparser::ast::{Expr, Ident, ObjectName, Query};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use graph::{DataType, Problem, suggestion};

use crate::place;
use crate::script::{Kind, end, syntax_problem, word};

#[derive(Clone, Debug)]
pub struct TableDefinition {
    pub name: Ident,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDefinition>,
    pub watermark: Option<WatermarkDefinition>,
    pub primary_key: Vec<Ident>,
    pub partitioned_by: Vec<Ident>,
    pub options: Vec<TableOption>,
    /// `WITH (...)`, or the name where there is none.
    pub options_span: Span,
}

#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    pub name: Ident,
    pub kind: ColumnKind,
}

#[derive(Clone, Debug)]
pub enum ColumnKind {
    Physical {
        data_type: DataType,
        nullable: bool,
    },
    Computed(Box<Expr>),
    /// `TYPE METADATA [FROM 'key'] [VIRTUAL]`; virtual ones are only read.
    Metadata {
        data_type: DataType,
        nullable: bool,
        key: String,
        read_only: bool,
    },
}

#[derive(Clone, Debug)]
pub struct WatermarkDefinition {
    pub column: Ident,
    pub expr: Expr,
}

#[derive(Clone, Debug)]
pub struct TableOption {
    pub key: String,
    pub value: String,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct ViewDefinition {
    pub name: Ident,
    pub if_not_exists: bool,
    pub columns: Vec<Ident>,
    pub query: Box<Query>,
}

/// Reads `CREATE ...` to its end.
pub fn create(parser: &mut Parser, statement: Span) -> Result<Kind, Vec<Problem>> {
    let mut problems = Vec::new();
    let kind = read(parser, &mut problems);
    match kind {
        Ok(kind) if problems.is_empty() => Ok(kind),
        Ok(_) => Err(problems),
        Err(error) => {
            // A problem that was found before the text stopped making sense may be why it did.
            if problems.is_empty() {
                problems.push(syntax_problem(error, statement));
            }
            Err(problems)
        }
    }
}

fn read(parser: &mut Parser, problems: &mut Vec<Problem>) -> Result<Kind, ParserError> {
    parser.expect_keyword(Keyword::CREATE)?;
    let _ = parser.parse_keyword(Keyword::TEMPORARY) || parser.parse_keyword(Keyword::TEMP);
    if parser.parse_keyword(Keyword::TABLE) {
        return table(parser, problems).map(|table| Kind::CreateTable(Box::new(table)));
    }
    if parser.parse_keyword(Keyword::VIEW) {
        return view(parser, problems).map(Kind::CreateView);
    }
    let token = parser.peek_token();
    parser.expected("TABLE or VIEW", token)
}

fn name(parser: &mut Parser, problems: &mut Vec<Problem>) -> Result<(Ident, bool), ParserError> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = parser.parse_object_name(false)?;
    Ok((single(&name, problems), if_not_exists))
}

/// The one part of a table's name.
fn single(name: &ObjectName, problems: &mut Vec<Problem>) -> Ident {
    let ident = name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new(name.to_string()));
    if name.0.len() > 1 {
        let problem =
            Problem::new("unsupported", format!("{name} names a catalogue or a database, of which there is none"));
        problems.push(problem.hint(format!("write {}", ident.value)).at(place(crate::script::span_of_name(name))));
    }
    ident
}

fn view(parser: &mut Parser, problems: &mut Vec<Problem>) -> Result<ViewDefinition, ParserError> {
    let (name, if_not_exists) = name(parser, problems)?;
    let mut columns = Vec::new();
    if parser.consume_token(&Token::LParen) {
        columns = parser.parse_comma_separated(|parser| {
            let name = parser.parse_identifier()?;
            if parser.parse_keyword(Keyword::COMMENT) {
                parser.parse_literal_string()?;
            }
            Ok(name)
        })?;
        parser.expect_token(&Token::RParen)?;
    }
    if parser.parse_keyword(Keyword::COMMENT) {
        parser.parse_literal_string()?;
    }
    parser.expect_keyword(Keyword::AS)?;
    let query = parser.parse_query()?;
    end(parser)?;
    Ok(ViewDefinition { name, if_not_exists, columns, query })
}

fn table(parser: &mut Parser, problems: &mut Vec<Problem>) -> Result<TableDefinition, ParserError> {
    let (name, if_not_exists) = name(parser, problems)?;
    let options_span = name.span;
    let mut table = TableDefinition {
        name,
        if_not_exists,
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: Vec::new(),
        options_span,
    };
    if parser.consume_token(&Token::LParen) {
        loop {
            element(parser, &mut table, problems)?;
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    }
    loop {
        let token = parser.peek_token();
        match word(&token).as_deref() {
            Some("COMMENT") => {
                parser.next_token();
                parser.parse_literal_string()?;
            }
            Some("PARTITIONED") => {
                parser.next_token();
                parser.expect_keyword(Keyword::BY)?;
                table.partitioned_by = names(parser)?;
            }
            Some("WITH") => {
                parser.next_token();
                options(parser, &mut table, token.span, problems)?;
            }
            Some(other @ ("LIKE" | "AS" | "DISTRIBUTED" | "USING" | "LOCATION" | "STORED")) => {
                let hint = match other {
                    "AS" => "write CREATE TABLE with its columns, then INSERT INTO it",
                    "LIKE" => "write the columns and options out",
                    _ => "write the table's options in WITH (...)",
                };
                let problem = Problem::new("unsupported", format!("CREATE TABLE ... {other} is not supported"));
                problems.push(problem.hint(hint).at(place(token.span)));
                return Ok(table);
            }
            _ => break,
        }
    }
    end(parser)?;
    Ok(table)
}

fn names(parser: &mut Parser) -> Result<Vec<Ident>, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let names = parser.parse_comma_separated(Parser::parse_identifier)?;
    parser.expect_token(&Token::RParen)?;
    Ok(names)
}

/// One of the comma-separated parts between the parentheses: a column, WATERMARK FOR, PRIMARY KEY.
fn element(parser: &mut Parser, table: &mut TableDefinition, problems: &mut Vec<Problem>) -> Result<(), ParserError> {
    let first = parser.peek_token();
    let second = word(&parser.peek_nth_token(1)).unwrap_or_default();
    match (word(&first).as_deref(), second.as_str()) {
        (Some("WATERMARK"), "FOR") => {
            parser.next_token();
            parser.next_token();
            let column = parser.parse_identifier()?;
            parser.expect_keyword(Keyword::AS)?;
            let expr = parser.parse_expr()?;
            if table.watermark.is_some() {
                let problem =
                    Problem::new("invalid_watermark", "a table has one watermark").hint("remove one WATERMARK FOR");
                problems.push(problem.at(place(first.span)));
            }
            table.watermark = Some(WatermarkDefinition { column, expr });
            Ok(())
        }
        (Some("CONSTRAINT"), _) | (Some("PRIMARY"), "KEY") => {
            if parser.parse_keyword(Keyword::CONSTRAINT) {
                parser.parse_identifier()?;
            }
            parser.expect_keywords(&[Keyword::PRIMARY, Keyword::KEY])?;
            let key = names(parser)?;
            not_enforced(parser, problems);
            primary_key(table, key, first.span, problems);
            Ok(())
        }
        (Some(other @ ("UNIQUE" | "FOREIGN" | "CHECK")), _)
            if second == "KEY" || parser.peek_nth_token(1).token == Token::LParen =>
        {
            let problem = Problem::new("unsupported", format!("the constraint {other} is not supported"));
            problems.push(
                problem.hint("remove it; PRIMARY KEY (k) NOT ENFORCED is the only constraint").at(place(first.span)),
            );
            parser.expected("a column", first)
        }
        _ => column(parser, table, problems),
    }
}

fn column(parser: &mut Parser, table: &mut TableDefinition, problems: &mut Vec<Problem>) -> Result<(), ParserError> {
    let name = parser.parse_identifier()?;
    if parser.parse_keyword(Keyword::AS) {
        let expr = parser.parse_expr()?;
        table.columns.push(ColumnDefinition { name, kind: ColumnKind::Computed(Box::new(expr)) });
        if parser.parse_keyword(Keyword::COMMENT) {
            parser.parse_literal_string()?;
        }
        return Ok(());
    }
    let data_type = data_type(parser, problems)?;
    let mut nullable = true;
    let mut metadata = None;
    loop {
        let token = parser.peek_token();
        match word(&token).as_deref() {
            Some("NOT") => {
                parser.next_token();
                parser.expect_keyword(Keyword::NULL)?;
                nullable = false;
            }
            Some("NULL") => {
                parser.next_token();
            }
            Some("COMMENT") => {
                parser.next_token();
                parser.parse_literal_string()?;
            }
            Some("PRIMARY") => {
                parser.next_token();
                parser.expect_keyword(Keyword::KEY)?;
                not_enforced(parser, problems);
                primary_key(table, vec![name.clone()], token.span, problems);
            }
            Some("METADATA") => {
                parser.next_token();
                let key = match parser.parse_keyword(Keyword::FROM) {
                    true => parser.parse_literal_string()?,
                    false => name.value.clone(),
                };
                metadata = Some((key, parser.parse_keyword(Keyword::VIRTUAL)));
            }
            Some("DEFAULT") => {
                let problem = Problem::new("unsupported", "a column's DEFAULT is not supported");
                problems.push(problem.hint("write COALESCE(column, value) in the SELECT").at(place(token.span)));
                parser.next_token();
                parser.parse_expr()?;
            }
            _ => break,
        }
    }
    let kind = match metadata {
        Some((key, read_only)) => ColumnKind::Metadata { data_type, nullable, key, read_only },
        None => ColumnKind::Physical { data_type, nullable },
    };
    table.columns.push(ColumnDefinition { name, kind });
    Ok(())
}

fn primary_key(table: &mut TableDefinition, key: Vec<Ident>, at: Span, problems: &mut Vec<Problem>) {
    if !table.primary_key.is_empty() {
        let problem = Problem::new("invalid_primary_key", "a table has one primary key")
            .hint("write PRIMARY KEY (a, b) NOT ENFORCED once");
        problems.push(problem.at(place(at)));
    }
    table.primary_key = key;
}

/// `NOT ENFORCED` must be said, as in Flink: nothing checks the key of what is read.
fn not_enforced(parser: &mut Parser, problems: &mut Vec<Problem>) {
    let token = parser.peek_token();
    let next = word(&parser.peek_nth_token(1));
    if word(&token).as_deref() == Some("NOT") && next.as_deref() == Some("ENFORCED") {
        parser.next_token();
        parser.next_token();
        return;
    }
    if word(&token).as_deref() == Some("ENFORCED") {
        parser.next_token();
    }
    let problem = Problem::new("invalid_primary_key", "a primary key is not enforced, and the text must say so");
    problems.push(problem.hint("write PRIMARY KEY (...) NOT ENFORCED").at(place(token.span)));
}

/// A column's type, in the words of the graph's types.
fn data_type(parser: &mut Parser, problems: &mut Vec<Problem>) -> Result<DataType, ParserError> {
    let mut tokens: Vec<TokenWithSpan> = Vec::new();
    let first = parser.next_token();
    if !matches!(first.token, Token::Word(_)) {
        return parser.expected("a type", first);
    }
    tokens.push(first);
    if matches!(parser.peek_token().token, Token::LParen | Token::Lt) {
        let mut open = 0i32;
        loop {
            let token = parser.next_token();
            open += match token.token {
                Token::LParen | Token::Lt => 1,
                Token::RParen | Token::Gt => -1,
                Token::ShiftRight => -2,
                Token::EOF => return parser.expected("the end of the type", token),
                _ => 0,
            };
            tokens.push(token);
            if open <= 0 {
                break;
            }
        }
    }
    while let Some("PRECISION" | "WITH" | "WITHOUT" | "LOCAL" | "TIME" | "ZONE") = word(&parser.peek_token()).as_deref()
    {
        tokens.push(parser.next_token());
    }
    let text = tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ");
    let at = place(crate::script::span_of(&tokens));
    Ok(text.parse::<DataType>().unwrap_or_else(|error| {
        let problem = Problem::new("unknown_type", format!("cannot read the type {text}: {}", error.reason));
        let problem = problem.at(at);
        problems.push(match &error.unknown {
            Some(wrong) => problem.hint(suggestion(wrong, DataType::NAMES.iter().copied())),
            None => problem,
        });
        DataType::String
    }))
}

fn options(
    parser: &mut Parser,
    table: &mut TableDefinition,
    with: Span,
    problems: &mut Vec<Problem>,
) -> Result<(), ParserError> {
    parser.expect_token(&Token::LParen)?;
    let mut last;
    loop {
        let start = parser.peek_token().span;
        let key = parser.parse_literal_string()?;
        parser.expect_token(&Token::Eq)?;
        let value_at = parser.peek_token().span;
        let value = parser.parse_literal_string()?;
        let span = start.union(&value_at);
        if table.options.iter().any(|option| option.key == key) {
            let problem = Problem::new("duplicate_option", format!("the option '{key}' is given twice"))
                .hint("remove one of them");
            problems.push(problem.at(place(span)));
        } else {
            table.options.push(TableOption { key, value, span });
        }
        last = parser.peek_token().span;
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    table.options_span = with.union(&last);
    Ok(())
}
