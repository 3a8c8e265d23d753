//! A script's text to statements: each is read on its own, so that an error in one does not hide those of the others.

use datafusion_sql::sqlparser::ast::{Ident, ObjectName, Query, Spanned};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};
use graph::Problem;

use crate::ddl::{self, TableDefinition, ViewDefinition};
use crate::dialect::SqlDialect;
use crate::place;

/// Longer scripts are refused.
pub const BYTES_MAX: usize = 1 << 20;
pub const STATEMENTS_MAX: usize = 2_000;
/// Tokens of one statement, without white space: room for lists of some 50,000 values.
pub const TOKENS_MAX: usize = 100_000;
/// UNIONs of one statement.
pub const UNIONS_MAX: usize = 200;
/// Levels that sqlparser may recurse: above what the nesting of parentheses can need.
const RECURSION_MAX: usize = 200;
/// Parentheses directly inside one another where a table is expected: the parser reads each level twice.
const FROM_NESTING_MAX: usize = 6;

pub struct Statement {
    pub kind: Kind,
    pub span: Span,
    pub explain: bool,
    /// Lower-case names that stand in the statement: what it may read.
    pub words: Vec<String>,
}

pub enum Kind {
    Set {
        key: String,
        value: String,
    },
    CreateTable(Box<TableDefinition>),
    CreateView(ViewDefinition),
    Insert {
        table: ObjectName,
        columns: Vec<Ident>,
        query: Box<Query>,
    },
    Query(Box<Query>),
    /// Did not parse; the table or view that it would have made.
    Broken {
        creates: Option<String>,
    },
}

/// What was read, and everything that was not.
pub fn read(text: &str) -> (Vec<Statement>, Vec<Problem>) {
    read_with(text, |_| {})
}

/// The same for text that is not the user's: its places would mean nothing, so it has none.
pub fn read_elsewhere(text: &str) -> (Vec<Statement>, Vec<Problem>) {
    let (statements, problems) = read_with(text, |token| token.span = Span::empty());
    let placeless = |problem: Problem| problem.at(graph::Place::Nowhere);
    (statements, problems.into_iter().map(placeless).collect())
}

fn read_with(text: &str, prepare: impl Fn(&mut TokenWithSpan)) -> (Vec<Statement>, Vec<Problem>) {
    if text.len() > BYTES_MAX {
        let message = format!("the script has {} bytes; {BYTES_MAX} are the most", text.len());
        return (Vec::new(), vec![Problem::new("query_too_complex", message).hint("split it into several scripts")]);
    }
    let mut problems = Vec::new();
    let mut tokens = Vec::new();
    if let Err(error) = Tokenizer::new(&SqlDialect, text).tokenize_with_location_into_buf(&mut tokens) {
        // What follows cannot be split into statements, and the last one before it is cut short.
        let start = error.location;
        let end = Location::new(start.line, start.column + 1);
        problems.push(Problem::new("sql_syntax", lower_first(&error.message)).at(place(Span::new(start, end))));
        let complete = tokens.iter().rposition(|token| token.token == Token::SemiColon).map_or(0, |at| at + 1);
        tokens.truncate(complete);
    }
    tokens.iter_mut().for_each(prepare);
    let mut statements = Vec::new();
    let mut set: Option<Span> = None;
    for chunk in split(tokens) {
        let mut reader = Reader { problems: &mut problems, set: &mut set };
        statements.extend(reader.statement(chunk));
        if statements.len() > STATEMENTS_MAX {
            let message = format!("the script has more than {STATEMENTS_MAX} statements");
            problems.push(Problem::new("query_too_complex", message));
            break;
        }
    }
    if let Some(span) = set {
        let problem =
            Problem::new("sql_syntax", "the statement set has no END").hint("write END; after its last INSERT INTO");
        problems.push(problem.at(place(span)));
    }
    if statements.is_empty() && problems.is_empty() {
        problems.push(
            Problem::new("sql_syntax", "the script has no statement")
                .hint("write CREATE TABLE ...; and INSERT INTO ... SELECT ...;"),
        );
    }
    (statements, problems)
}

/// The tokens between semicolons, without white space and comments.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut chunks = vec![Vec::new()];
    for token in tokens {
        match token.token {
            Token::Whitespace(_) => {}
            Token::SemiColon => chunks.push(Vec::new()),
            _ => chunks.last_mut().expect("there is always a last chunk").push(token),
        }
    }
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

struct Reader<'a> {
    problems: &'a mut Vec<Problem>,
    /// Where the open statement set began.
    set: &'a mut Option<Span>,
}

impl Reader<'_> {
    fn statement(&mut self, mut tokens: Vec<TokenWithSpan>) -> Option<Statement> {
        let span = span_of(&tokens);
        if let Some(problem) = too_complex(&tokens, span) {
            self.problems.push(problem);
            return Some(Statement {
                kind: Kind::Broken { creates: created(&tokens) },
                span,
                explain: false,
                words: Vec::new(),
            });
        }
        if words_are(&tokens, &["END"]) && tokens.len() == 1 && self.set.is_some() {
            *self.set = None;
            return None;
        }
        let explain = take_words(&mut tokens, &["EXPLAIN"]);
        if explain {
            let _ = take_words(&mut tokens, &["PLAN", "FOR"]);
        }
        if take_words(&mut tokens, &["EXECUTE", "STATEMENT", "SET", "BEGIN"])
            || take_words(&mut tokens, &["BEGIN", "STATEMENT", "SET"])
        {
            if self.set.replace(span).is_some() {
                let problem = Problem::new("sql_syntax", "a statement set begins inside another one")
                    .hint("write END; before it");
                self.problems.push(problem.at(place(span)));
            }
            if words_are(&tokens, &["END"]) && tokens.len() == 1 {
                *self.set = None;
                let problem =
                    Problem::new("sql_syntax", "the statement set is empty, and lacks a semicolon before END")
                        .hint("write EXECUTE STATEMENT SET BEGIN INSERT INTO ...; END;");
                self.problems.push(problem.at(place(span)));
                return None;
            }
            if tokens.is_empty() {
                return None;
            }
        }
        if tokens.is_empty() {
            let problem = Problem::new("sql_syntax", "EXPLAIN stands before a statement")
                .hint("write EXPLAIN SELECT ... or EXPLAIN INSERT INTO ...");
            self.problems.push(problem.at(place(span)));
            return None;
        }
        let span = span_of(&tokens);
        let words = names(&tokens);
        let creates = created(&tokens);
        let kind =
            self.refused(&tokens, explain).map_or_else(|| expr::bounded(tokens.len(), || parse(tokens, span)), Err);
        let kind = kind.unwrap_or_else(|problems| {
            self.problems.extend(problems);
            Kind::Broken { creates }
        });
        Some(Statement { kind, span, explain, words })
    }

    /// Statements that are refused before they are parsed.
    fn refused(&self, tokens: &[TokenWithSpan], explain: bool) -> Option<Vec<Problem>> {
        let first = word(tokens.first()?).unwrap_or_default();
        let second = tokens.get(1).and_then(word).unwrap_or_default();
        let span = tokens.iter().take(2).map(|token| token.span).reduce(|a, b| a.union(&b)).unwrap_or(Span::empty());
        let refuse = |what: &str, hint: &str| {
            let problem = Problem::new("statement_not_supported", format!("{what} is not supported")).hint(hint);
            Some(vec![problem.at(place(span))])
        };
        if self.set.is_some() && first != "INSERT" {
            return refuse(
                &format!("{first} in a statement set"),
                "a statement set holds INSERT INTO statements alone",
            );
        }
        if explain && !matches!(first.as_str(), "SELECT" | "WITH" | "INSERT" | "VALUES") && !first.is_empty() {
            return refuse(&format!("EXPLAIN {first}"), "EXPLAIN stands before SELECT or INSERT INTO");
        }
        let known =
            "a script holds CREATE TABLE, CREATE VIEW, INSERT INTO, SELECT, SET, EXPLAIN and EXECUTE STATEMENT SET";
        match (first.as_str(), second.as_str()) {
            ("DROP", _) => {
                refuse(&format!("DROP {second}"), "tables and views live as long as the script; leave it out")
            }
            ("ALTER", _) => refuse(&format!("ALTER {second}"), "change the CREATE statement instead"),
            ("SHOW" | "DESCRIBE" | "DESC" | "USE" | "RESET" | "ADD" | "REMOVE" | "LOAD" | "UNLOAD" | "HELP", _) => {
                refuse(&first, known)
            }
            (
                "ANALYZE" | "COMPILE" | "CALL" | "COPY" | "ATTACH" | "INSTALL" | "PRAGMA" | "GRANT" | "REVOKE"
                | "COMMIT" | "ROLLBACK",
                _,
            ) => refuse(&first, known),
            ("UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" | "REPLACE", _) => {
                refuse(&first, "write the new rows with INSERT INTO ... SELECT")
            }
            (
                "CREATE",
                "FUNCTION" | "CATALOG" | "DATABASE" | "MODEL" | "MATERIALIZED" | "INDEX" | "SCHEMA" | "EXTERNAL"
                | "UNIQUE",
            ) => refuse(&format!("CREATE {second}"), known),
            ("CREATE", "OR") => refuse("CREATE OR REPLACE", "names are new in a script; leave OR REPLACE out"),
            ("INSERT", "OVERWRITE") => refuse("INSERT OVERWRITE", "write INSERT INTO into a new path"),
            ("STOP", _) => refuse(&format!("STOP {second}"), "a run is stopped from outside the script"),
            _ => None,
        }
    }
}

fn parse(tokens: Vec<TokenWithSpan>, span: Span) -> Result<Kind, Vec<Problem>> {
    let first = tokens.first().and_then(word).unwrap_or_default();
    let opens = tokens.first().is_some_and(|token| token.token == Token::LParen);
    let mut parser = parser(tokens);
    let syntax = |error: ParserError| vec![syntax_problem(error, span)];
    match first.as_str() {
        "SET" => set(&mut parser, span),
        "CREATE" => ddl::create(&mut parser, span),
        "INSERT" => (|| {
            parser.expect_keywords(&[Keyword::INSERT, Keyword::INTO])?;
            let table = parser.parse_object_name(false)?;
            let is_list = parser.peek_token().token == Token::LParen
                && !matches!(&parser.peek_nth_token(1).token, Token::LParen)
                && !matches!(&parser.peek_nth_token(1).token, Token::Word(w) if matches!(w.keyword, Keyword::SELECT | Keyword::WITH));
            let mut columns = Vec::new();
            if is_list {
                parser.expect_token(&Token::LParen)?;
                columns = parser.parse_comma_separated(Parser::parse_identifier)?;
                parser.expect_token(&Token::RParen)?;
            }
            let query = parser.parse_query()?;
            end(&mut parser)?;
            Ok(Kind::Insert { table, columns, query })
        })()
        .map_err(syntax),
        "SELECT" | "WITH" | "VALUES" | "TABLE" => query(&mut parser).map_err(syntax),
        _ if opens => query(&mut parser).map_err(syntax),
        _ => {
            let token = parser.peek_token();
            let known = ["CREATE", "INSERT", "SELECT", "SET", "EXPLAIN", "EXECUTE", "WITH"];
            let hint = match graph::nearest(&first, known) {
                Some(near) if near.len() > 2 => format!("did you mean {near}?"),
                _ => "a script holds CREATE TABLE, CREATE VIEW, INSERT INTO, SELECT, SET, EXPLAIN and EXECUTE STATEMENT SET".to_string(),
            };
            let problem = Problem::new("sql_syntax", format!("a statement cannot begin with {}", shown(&token.token)));
            Err(vec![problem.hint(hint).at(place(token.span))])
        }
    }
}

fn query(parser: &mut Parser) -> Result<Kind, ParserError> {
    let query = parser.parse_query()?;
    end(parser)?;
    Ok(Kind::Query(query))
}

/// The statement must end here.
pub fn end(parser: &mut Parser) -> Result<(), ParserError> {
    match parser.peek_token() {
        TokenWithSpan { token: Token::EOF, .. } => Ok(()),
        token => {
            // `SELECT a FORM t`: the parser took a mistyped keyword for an alias, and stumbled over what comes after it.
            const CLAUSES: [&str; 12] =
                ["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "UNION", "FETCH", "BY", "AND", "AS"];
            let near = |token: &TokenWithSpan| match &token.token {
                Token::Word(word)
                    if word.quote_style.is_none() && !CLAUSES.contains(&word.value.to_uppercase().as_str()) =>
                {
                    graph::nearest(&word.value, CLAUSES).filter(|_| word.value.len() > 2)
                }
                _ => None,
            };
            let before = parser.get_current_token().clone();
            match near(&before).map(|near| (near, &before)).or(near(&token).map(|near| (near, &token))) {
                Some((near, wrong)) => {
                    let message = format!("Expected: end of statement, found: {}", token.token);
                    let hint = format!("did you mean {near} instead of {}?", wrong.token);
                    Err(expr::syntax_error(&message, &hint, token.span))
                }
                None => parser.expected("end of statement", token),
            }
        }
    }
}

fn set(parser: &mut Parser, span: Span) -> Result<Kind, Vec<Problem>> {
    let usage =
        || vec![Problem::new("sql_syntax", "cannot read this SET").hint("write SET 'name' = 'value'").at(place(span))];
    parser.next_token();
    let mut text = |stop: bool| -> Option<String> {
        let mut text = String::new();
        loop {
            let token = parser.peek_token();
            match token.token {
                Token::EOF => break,
                Token::Eq if stop => break,
                Token::SingleQuotedString(part) => text.push_str(&part),
                other => text.push_str(&other.to_string()),
            }
            parser.next_token();
        }
        if stop && !parser.consume_token(&Token::Eq) {
            return None;
        }
        (!text.is_empty() || !stop).then_some(text)
    };
    let key = text(true).ok_or_else(usage)?;
    let value = text(false).ok_or_else(usage)?;
    Ok(Kind::Set { key, value })
}

pub fn parser(tokens: Vec<TokenWithSpan>) -> Parser<'static> {
    Parser::new(&SqlDialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens)
}

/// What the parser said, at the place that it names.
pub fn syntax_problem(error: ParserError, statement: Span) -> Problem {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            let problem =
                Problem::new("query_too_complex", "the statement nests too deep").hint("split it with CREATE VIEW");
            return problem.at(place(statement));
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    // sqlparser gives the place only inside the text.
    let (message, location) = match text.rsplit_once(" at Line: ") {
        Some((message, rest)) => {
            let numbers = rest
                .split_once(", Column: ")
                .and_then(|(line, column)| Some((line.parse().ok()?, column.trim().parse().ok()?)));
            (message.to_string(), numbers.map(|(line, column)| Location::new(line, column)))
        }
        None => (text, None),
    };
    let (message, hint) = match message.split_once(expr::HINT_MARK) {
        Some((message, hint)) => (message.to_string(), Some(hint.to_string())),
        None => (message, None),
    };
    let length = message
        .rsplit_once("found: ")
        .map_or(1, |(_, found)| if found == "EOF" { 1 } else { found.chars().count() as u64 });
    let span = match location {
        Some(start) if start.line > 0 => Span::new(start, Location::new(start.line, start.column + length)),
        _ => Span::new(statement.end, Location::new(statement.end.line, statement.end.column + 1)),
    };
    let message = message
        .replace("Expected: ", "expected ")
        .replace("found: EOF", "found the end of the statement")
        .replace("found: ", "found ");
    let problem = Problem::new("sql_syntax", lower_first(&message));
    let problem = match (hint, reserved_word(&message)) {
        (Some(hint), _) => problem.hint(hint),
        (None, Some(word)) => problem.hint(format!("{word} is a keyword; as a name it stands in backquotes: `{word}`")),
        (None, None) => problem,
    };
    problem.at(place(span))
}

/// The keyword that stands where the parser wanted a name.
fn reserved_word(message: &str) -> Option<String> {
    let found = message.rsplit_once("found ")?.1;
    const CLAUSES: &[&str] = &[
        "FROM", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "UNION", "AND", "OR", "AS", "END", "THEN", "BY", "WITH",
        "SELECT",
    ];
    if CLAUSES.contains(&found.to_uppercase().as_str()) {
        return None;
    }
    let wanted = message.contains("identifier") || message.contains("an expression");
    let plain = found.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && found.starts_with(|c: char| c.is_ascii_alphabetic());
    (wanted && plain && !found.is_empty()).then(|| found.to_string())
}

fn too_complex(tokens: &[TokenWithSpan], span: Span) -> Option<Problem> {
    let problem = |message: String, at: Span| {
        Some(Problem::new("query_too_complex", message).hint("split the statement with CREATE VIEW").at(place(at)))
    };
    if tokens.len() > TOKENS_MAX {
        return problem(
            format!("the statement has {} words and signs; {TOKENS_MAX} are the most", tokens.len()),
            first_line(span),
        );
    }
    let mut unions =
        tokens.iter().filter(|token| matches!(word(token).as_deref(), Some("UNION" | "INTERSECT" | "EXCEPT")));
    if let Some(token) = unions.nth(UNIONS_MAX) {
        return problem(format!("the statement has more than {UNIONS_MAX} UNIONs"), token.span);
    }
    if let Err(error) = expr::check_tokens(tokens) {
        let at = error.span.map_or(place(span), |(line, column, end_line, end_column)| graph::Place::Span {
            line,
            column,
            end_line,
            end_column,
        });
        let problem = Problem::new(error.code, error.message).at(at);
        return Some(match error.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }
    let mut opened = 0;
    let mut table_expected = false;
    for token in tokens {
        match &token.token {
            Token::LParen if table_expected => opened += 1,
            _ => {
                opened = 0;
                table_expected = matches!(word(token).as_deref(), Some("FROM" | "JOIN"));
            }
        }
        if opened > FROM_NESTING_MAX {
            return problem(format!("more than {FROM_NESTING_MAX} parentheses open after FROM"), token.span);
        }
    }
    None
}

fn first_line(span: Span) -> Span {
    if span.start.line == span.end.line {
        span
    } else {
        Span::new(span.start, Location::new(span.start.line, span.start.column + 1))
    }
}

/// The name after CREATE ... TABLE or VIEW, so that its use is not reported again when the statement does not parse.
fn created(tokens: &[TokenWithSpan]) -> Option<String> {
    if tokens.first().and_then(word).as_deref() != Some("CREATE") {
        return None;
    }
    let kind = tokens.iter().take(5).position(|token| matches!(word(token).as_deref(), Some("TABLE" | "VIEW")))?;
    let rest = &tokens[kind + 1..];
    let rest = if words_are(rest, &["IF", "NOT", "EXISTS"]) { &rest[3..] } else { rest };
    match &rest.first()?.token {
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    }
}

fn names(tokens: &[TokenWithSpan]) -> Vec<String> {
    let mut names: Vec<String> = tokens
        .iter()
        .filter_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.to_lowercase()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A bare word in upper case.
pub fn word(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
        _ => None,
    }
}

fn words_are(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    tokens.len() >= words.len()
        && tokens.iter().zip(words).all(|(token, wanted)| word(token).as_deref() == Some(wanted))
}

fn take_words(tokens: &mut Vec<TokenWithSpan>, words: &[&str]) -> bool {
    let found = words_are(tokens, words);
    if found {
        tokens.drain(..words.len());
    }
    found
}

pub fn span_of(tokens: &[TokenWithSpan]) -> Span {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => Span::new(first.span.start, last.span.end),
        _ => Span::empty(),
    }
}

pub fn span_of_name(name: &ObjectName) -> Span {
    name.span()
}

fn shown(token: &Token) -> String {
    match token {
        Token::EOF => "nothing".to_string(),
        other => format!("{:?}", other.to_string()),
    }
}

pub fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // Not where a keyword or an abbreviation begins the text.
        Some(first) if !chars.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_string(),
    }
}
