//! What a FROM item or a query gives: columns that are expressions over a node's output.
//!
//! Projections are not made into nodes until something needs them as such, so that subqueries and views that only pick and rename cost
//! nothing, and a window function followed by GROUP BY becomes one window aggregate.

use datafusion_sql::sqlparser::ast::{Expr, Ident};
use datafusion_sql::sqlparser::keywords::{ALL_KEYWORDS, Keyword, RESERVED_FOR_COLUMN_ALIAS};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Span, Tokenizer};
use graph::{Column, DataType, Window, nearest};

use crate::dialect::SqlDialect;
use crate::nodes::NodeRef;

pub const WINDOW_COLUMNS: [&str; 3] = ["window_start", "window_end", "window_time"];

/// A query's result so far.
#[derive(Clone, Debug)]
pub struct Relation {
    pub node: NodeRef,
    pub outputs: Vec<Output>,
    pub windows: Windows,
    pub span: Span,
}

/// A column of the result.
#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    /// Over the node's columns; a bare marked name (see [`window_mark`]) for a column of a pending window.
    pub expr: Expr,
    pub data_type: DataType,
    pub nullable: bool,
    pub span: Span,
}

impl Output {
    pub fn column(&self) -> Column {
        Column::new(self.name.clone(), self.data_type.clone(), self.nullable)
    }
}

/// What is known of the windows of a relation's rows.
#[derive(Clone, Debug)]
pub enum Windows {
    None,
    /// A window function that is not a node yet.
    Pending(Box<Pending>),
    /// The node has the columns `window_start`, `window_end` and `window_time`.
    Attached(WindowKind),
}

#[derive(Clone, Debug)]
pub struct Pending {
    /// Over the node's columns.
    pub window: Window,
    /// Of a session: over the node's columns.
    pub partition_by: Vec<Expr>,
    pub time_type: DataType,
    pub spans: WindowSpans,
}

/// Where a window's parts stand in the script, by their names in the graph.
#[derive(Clone, Debug)]
pub struct WindowSpans {
    pub whole: Span,
    pub parts: Vec<(&'static str, Span)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl WindowKind {
    pub fn of(window: &Window) -> Option<WindowKind> {
        match window {
            Window::Tumble { .. } => Some(WindowKind::Tumble),
            Window::Hop { .. } => Some(WindowKind::Hop),
            Window::Cumulate { .. } => Some(WindowKind::Cumulate),
            Window::Session { .. } => Some(WindowKind::Session),
            Window::Attached {} => None,
        }
    }

    /// Whether these columns (start, end, time) name one window: the windows of a kind differ in both bounds, but cumulated ones share
    /// starts, and sessions of different keys share either.
    pub fn named_by(self, columns: &[usize]) -> bool {
        let (start, end) = (columns.contains(&0), columns.contains(&1) || columns.contains(&2));
        match self {
            WindowKind::Tumble | WindowKind::Hop => start || end,
            WindowKind::Cumulate => end,
            WindowKind::Session => start && end,
        }
    }
}

/// The types of a window's columns, given that of the time attribute: the bounds have no zone, and milliseconds at least.
pub fn window_types(time: &DataType) -> [DataType; 3] {
    let precision = match time {
        DataType::Timestamp(precision) | DataType::TimestampLtz(precision) => (*precision).max(3),
        _ => 3,
    };
    [DataType::Timestamp(precision), DataType::Timestamp(precision), time.clone()]
}

/// The columns that a window adds.
pub fn window_columns(time: &DataType) -> Vec<Column> {
    WINDOW_COLUMNS
        .iter()
        .zip(window_types(time))
        .map(|(name, data_type)| Column::new(*name, data_type, false))
        .collect()
}

pub fn window_time(window: &Window) -> &str {
    match window {
        Window::Tumble { time, .. }
        | Window::Hop { time, .. }
        | Window::Cumulate { time, .. }
        | Window::Session { time, .. } => time,
        Window::Attached {} => WINDOW_COLUMNS[2],
    }
}

pub fn set_window_time(window: &mut Window, name: String) {
    match window {
        Window::Tumble { time, .. }
        | Window::Hop { time, .. }
        | Window::Cumulate { time, .. }
        | Window::Session { time, .. } => *time = name,
        Window::Attached {} => {}
    }
}

/// A name in the text of a graph's expressions: bare where it can only be a name, else in backquotes.
pub fn ident(name: &str, span: Span) -> Ident {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    Ident { value: name.to_string(), quote_style: (!plain || !is_free(name)).then_some('`'), span }
}

/// Whether a word is no part of the grammar of expressions.
fn is_free(word: &str) -> bool {
    /// Words that stand between operands or end one; as an operand alone the parser would take them.
    const BETWEEN: &[&str] = &[
        "ALL",
        "ANY",
        "ARRAY",
        "AS",
        "AT",
        "BETWEEN",
        "BOTH",
        "BY",
        "CASE",
        "COLLATE",
        "DESCRIPTOR",
        "DISTINCT",
        "DIV",
        "ELSE",
        "END",
        "ESCAPE",
        "FOR",
        "FROM",
        "ILIKE",
        "IN",
        "IS",
        "ISNULL",
        "LEADING",
        "LIKE",
        "MEMBER",
        "NOT",
        "NOTNULL",
        "OVER",
        "OVERLAPS",
        "REGEXP",
        "RLIKE",
        "SIMILAR",
        "SOME",
        "TABLE",
        "THEN",
        "TO",
        "TRAILING",
        "WHEN",
        "XOR",
    ];
    let upper = word.to_uppercase();
    if ALL_KEYWORDS.binary_search(&upper.as_str()).is_err() {
        return true;
    }
    let reserved = |keyword: &Keyword| format!("{keyword:?}") == upper;
    if BETWEEN.contains(&upper.as_str()) || RESERVED_FOR_COLUMN_ALIAS.iter().any(reserved) {
        return false;
    }
    let Ok(tokens) = Tokenizer::new(&SqlDialect, word).tokenize() else { return false };
    let parsed = Parser::new(&SqlDialect).with_tokens(tokens).parse_expr();
    matches!(parsed, Ok(Expr::Identifier(name)) if name.value == word && name.quote_style.is_none())
}

pub fn column(name: &str, span: Span) -> Expr {
    Expr::Identifier(ident(name, span))
}

/// Stands for `window_start` (0), `window_end` (1) or `window_time` (2) of a pending window. Its quotes are double, which no name that a
/// script writes can have after its resolution.
pub fn window_mark(index: usize, span: Span) -> Expr {
    Expr::Identifier(Ident { value: WINDOW_COLUMNS[index].to_string(), quote_style: Some('"'), span })
}

pub fn marked(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Identifier(ident) if ident.quote_style == Some('"') => {
            WINDOW_COLUMNS.iter().position(|name| *name == ident.value)
        }
        _ => None,
    }
}

/// The node's column that a bare expression is.
pub fn bare(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(ident) if ident.quote_style != Some('"') => Some(&ident.value),
        _ => None,
    }
}

/// Why a name stands for no column.
pub enum NotFound {
    Unknown(String),
    Ambiguous(String),
}

/// Finds a name among names: exactly, or in another case if only one fits.
pub fn find<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<usize, NotFound> {
    let exact: Vec<usize> = names.clone().enumerate().filter(|(_, known)| *known == name).map(|(at, _)| at).collect();
    if let [at] = exact[..] {
        return Ok(at);
    }
    let lower = name.to_lowercase();
    let alike: Vec<(usize, &str)> =
        names.clone().enumerate().filter(|(_, known)| known.to_lowercase() == lower).collect();
    match alike[..] {
        [(at, _)] => Ok(at),
        [] => Err(NotFound::Unknown(match nearest(name, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => graph::suggestion(name, names),
        })),
        _ => Err(NotFound::Ambiguous(format!(
            "it may be {}",
            alike.iter().map(|(_, known)| *known).collect::<Vec<_>>().join(" or ")
        ))),
    }
}

/// `name`, or with the first free number after it.
pub fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_string();
    }
    (0u32..)
        .map(|number| format!("{name}{number}"))
        .find(|candidate| !taken(candidate))
        .expect("numbers do not run out")
}

/// The relation's columns under the name of its table.
#[derive(Clone, Debug)]
pub struct Scope {
    pub relation: Relation,
    pub qualifier: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &str) -> Option<Expr> {
        let tokens = Tokenizer::new(&SqlDialect, text).tokenize().ok()?;
        let mut parser = Parser::new(&SqlDialect).with_tokens(tokens);
        let expr = parser.parse_expr().ok()?;
        (parser.peek_token().token == datafusion_sql::sqlparser::tokenizer::Token::EOF).then_some(expr)
    }

    #[test]
    fn a_name_reads_the_same_bare_and_in_backquotes() {
        let forms = [
            "@",
            "@ + 1",
            "1 + @",
            "- @ * 2",
            "NOT @",
            "CASE WHEN @ > 1 AND @ IS NOT NULL THEN @ ELSE @ END",
            "CASE @ WHEN @ THEN 1 END",
            "@ BETWEEN @ AND @",
            "@ IN (@, @)",
            "@ LIKE @",
            "CAST(@ AS INT)",
            "UPPER(@)",
            "f(@, @)",
            "(@)",
            "@ = 'a' OR @",
            "@ IS NULL",
            "@ || @",
            "SUM(@) FILTER (WHERE @ > 1)",
            "@ - INTERVAL '1' DAY",
            "EXTRACT(DAY FROM @)",
            "TRIM(@)",
            "SUBSTRING(@ FROM 1 FOR 2)",
            "POSITION(@ IN @)",
            "@[1]",
            "@.x",
            "x.@",
        ];
        let mut bare = 0;
        let mut wrong = Vec::new();
        for word in ALL_KEYWORDS {
            let word = word.to_lowercase();
            let shown = ident(&word, Span::empty());
            bare += usize::from(shown.quote_style.is_none());
            for form in forms {
                let (ours, quoted) = (form.replace('@', &shown.to_string()), form.replace('@', &format!("`{word}`")));
                let read = |text: &str| {
                    parsed(text)
                        .map(|expr| (std::mem::discriminant(&expr), expr.to_string().replace('`', "").to_lowercase()))
                };
                if read(&ours).is_none() || read(&ours) != read(&quoted) {
                    wrong.push(ours);
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(bare > 500, "{bare} keywords are bare");
    }

    #[test]
    fn names_in_backquotes_survive() {
        for name in ["a b", "a`b", "1a", "ä", "select", "count(*)", "a\nb"] {
            assert_eq!(parsed(&ident(name, Span::empty()).to_string()).as_ref().and_then(super::bare), Some(name));
        }
    }
}
