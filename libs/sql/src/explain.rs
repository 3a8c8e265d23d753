//! A graph as a tree for people: from each sink down to its sources.

use std::collections::BTreeSet;
use std::fmt::Write;

use expr::Analysis;
use graph::{AggregateCall, Graph, NamedExpr, Node, Operator, SortKey, Window};

/// The tree of a graph: per operator what it does, and the columns, time attribute, boundedness and changelog kind of what leaves it.
pub fn explain(graph: &Graph, analysis: &Analysis) -> String {
    let mut text = String::new();
    let mut shown = BTreeSet::new();
    let _ = writeln!(
        text,
        "{}",
        if analysis.bounded {
            "bounded: the run ends with its input"
        } else {
            "unbounded: the run goes on until it is stopped"
        }
    );
    for node in graph.nodes.iter().filter(|node| matches!(node.operator, Operator::Sink(_))) {
        text.push('\n');
        // Depth first with an own stack: a graph may be deeper than ours.
        let mut rest: Vec<(&Node, String, bool, bool)> = vec![(node, String::new(), true, true)];
        while let Some((node, indent, last, root)) = rest.pop() {
            let (branch, below) = match (root, last) {
                (true, _) => (String::new(), String::new()),
                (false, true) => (format!("{indent}└─ "), format!("{indent}   ")),
                (false, false) => (format!("{indent}├─ "), format!("{indent}│  ")),
            };
            let again = !shown.insert(node.id.as_str());
            let _ = writeln!(
                text,
                "{branch}{} ({}){}",
                node.id,
                node.operator.type_name(),
                if again { ", shown above" } else { "" }
            );
            if again {
                continue;
            }
            let bar = if node.inputs.is_empty() { "     " } else { "│    " };
            for line in details(&node.operator).into_iter().chain(facts(node, analysis)) {
                let _ = writeln!(text, "{below}{bar}{line}");
            }
            let inputs: Vec<&Node> = node.inputs.iter().filter_map(|input| graph.node(input)).collect();
            let count = inputs.len();
            rest.extend(
                inputs.into_iter().enumerate().rev().map(|(at, input)| (input, below.clone(), at + 1 == count, false)),
            );
        }
    }
    for warning in &analysis.warnings {
        let _ = writeln!(text, "\nwarning[{}]: {}", warning.code, warning.message);
        if let Some(hint) = &warning.hint {
            let _ = writeln!(text, "  = help: {hint}");
        }
    }
    text
}

fn facts(node: &Node, analysis: &Analysis) -> Vec<String> {
    let Some(facts) = analysis.facts.get(&node.id).filter(|_| !matches!(node.operator, Operator::Sink(_))) else {
        return Vec::new();
    };
    let time = match &facts.time {
        Some(time) => format!("time {} ({})", time.column, graph::Period::from_us(time.unit_us)),
        None => "no time".to_string(),
    };
    let bounded = if facts.bounded { "bounded" } else { "unbounded" };
    vec![format!("-> {}", facts.schema), format!("   {}, {time}, {bounded}", facts.changelog)]
}

pub(crate) fn details(operator: &Operator) -> Vec<String> {
    let named = |columns: &[NamedExpr]| {
        let one = |c: &NamedExpr| {
            if c.name == c.expr.trim_matches('`') {
                c.name.clone()
            } else {
                format!("{} AS {}", c.expr, graph::quoted(&c.name))
            }
        };
        columns.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let calls = |calls: &[AggregateCall]| calls.iter().map(call).collect::<Vec<_>>().join(", ");
    let labelled = |label: &str, text: String| (!text.is_empty()).then(|| format!("{label}: {text}"));
    let lines: Vec<Option<String>> = match operator {
        Operator::Source(source) => vec![
            labelled("connector", source.connector.name().into()),
            labelled("partitioned by", source.partition_by.join(", ")),
        ],
        Operator::Project(project) => vec![labelled("columns", named(&project.columns))],
        Operator::Filter(filter) => vec![labelled("where", filter.predicate.clone())],
        Operator::Union(_) | Operator::LateRows(_) | Operator::DeadLetters(_) => Vec::new(),
        Operator::Watermark(watermark) => vec![
            Some(format!("watermark: {} - {}", watermark.column, watermark.delay)),
            watermark.idle_timeout.map(|timeout| format!("idle after: {timeout}")),
        ],
        Operator::WindowAssign(assign) => vec![Some(window(&assign.window))],
        Operator::WindowAggregate(aggregate) => vec![
            Some(window(&aggregate.window)),
            labelled("keys", named(&aggregate.keys)),
            labelled("aggregates", calls(&aggregate.aggregates)),
            (aggregate.allowed_lateness.us > 0).then(|| format!("allowed lateness: {}", aggregate.allowed_lateness)),
        ],
        Operator::Aggregate(aggregate) => {
            vec![labelled("keys", named(&aggregate.keys)), labelled("aggregates", calls(&aggregate.aggregates))]
        }
        Operator::Sort(sort) => {
            let by = sort.by.iter().map(sort_key).collect::<Vec<_>>();
            vec![
                labelled("by", by.join(", ")),
                sort.limit.map(|limit| format!("limit: {limit}")),
                (sort.offset > 0).then(|| format!("offset: {}", sort.offset)),
            ]
        }
        Operator::Sink(sink) => vec![
            labelled("connector", sink.connector.name().into()),
            labelled("primary key", sink.primary_key.join(", ")),
            labelled("partitioned by", sink.partition_by.join(", ")),
        ],
    };
    lines.into_iter().flatten().collect()
}

fn sort_key(key: &SortKey) -> String {
    let nulls = match key.nulls_first {
        Some(true) => " NULLS FIRST",
        Some(false) => " NULLS LAST",
        None => "",
    };
    format!("{}{}{nulls}", key.expr, if key.descending { " DESC" } else { "" })
}

fn call(call: &AggregateCall) -> String {
    let argument = call.args.first().map_or("*", String::as_str);
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let fraction = call.fraction.map(|fraction| format!(", {fraction}")).unwrap_or_default();
    let filter = call.filter.as_ref().map(|filter| format!(" FILTER (WHERE {filter})")).unwrap_or_default();
    format!(
        "{}({distinct}{argument}{fraction}){filter} AS {}",
        call.function.name().to_uppercase(),
        graph::quoted(&call.name)
    )
}

fn window(window: &Window) -> String {
    let offset = |offset: &graph::Period| if offset.us == 0 { String::new() } else { format!(", offset {offset}") };
    match window {
        Window::Tumble { time, size, offset: o } => format!("window: tumble by {time}, size {size}{}", offset(o)),
        Window::Hop { time, size, slide, offset: o } => {
            format!("window: hop by {time}, slide {slide}, size {size}{}", offset(o))
        }
        Window::Cumulate { time, size, step, offset: o } => {
            format!("window: cumulate by {time}, step {step}, size {size}{}", offset(o))
        }
        Window::Session { time, gap } => format!("window: session by {time}, gap {gap}"),
        Window::Attached {} => "window: as attached to the rows".to_string(),
    }
}
