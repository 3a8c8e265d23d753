//! What a FROM item or a query gives: columns that are expressions over a node's output.
//!
//! Projections are not made into nodes until something needs them as such, so that subqueries and views that only pick and rename cost
//! nothing, and a window function followed by GROUP BY becomes one window aggregate.

use datafusion_sql::sqlparser::ast::{Expr, Ident};
use datafusion_sql::sqlparser::keywords::ALL_KEYWORDS;
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Column, DataType, Window, nearest};

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

pub fn window_time(window: &Window) -> &str {
    match window {
        Window::Tumble { time, .. } | Window::Hop { time, .. } | Window::Cumulate { time, .. } | Window::Session { time, .. } => time,
        Window::Attached {} => WINDOW_COLUMNS[2],
    }
}

pub fn set_window_time(window: &mut Window, name: String) {
    match window {
        Window::Tumble { time, .. } | Window::Hop { time, .. } | Window::Cumulate { time, .. } | Window::Session { time, .. } => *time = name,
        Window::Attached {} => {}
    }
}

/// A name in the text of a graph's expressions: bare where that can only be a name, else in backquotes.
pub fn ident(name: &str, span: Span) -> Ident {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()).is_err();
    Ident { value: name.to_string(), quote_style: (!plain).then_some('`'), span }
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
        Expr::Identifier(ident) if ident.quote_style == Some('"') => WINDOW_COLUMNS.iter().position(|name| *name == ident.value),
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
    let alike: Vec<(usize, &str)> = names.clone().enumerate().filter(|(_, known)| known.to_lowercase() == lower).collect();
    match alike[..] {
        [(at, _)] => Ok(at),
        [] => Err(NotFound::Unknown(match nearest(name, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => graph::suggestion(name, names),
        })),
        _ => Err(NotFound::Ambiguous(format!("it may be {}", alike.iter().map(|(_, known)| *known).collect::<Vec<_>>().join(" or ")))),
    }
}

/// `name`, or with the first free number after it.
pub fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_string();
    }
    (0u32..).map(|number| format!("{name}{number}")).find(|candidate| !taken(candidate)).expect("numbers do not run out")
}

/// The relation's columns under the name of its table.
#[derive(Clone, Debug)]
pub struct Scope {
    pub relation: Relation,
    pub qualifier: Option<String>,
}
