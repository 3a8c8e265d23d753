//! Which views of a job would keep a part of their rows only.

use graph::connector::ViewOptions;
use graph::{Graph, Operator, Problem, SinkConnector, SourceConnector, Window};

/// A warning for each view without a key that may get more rows than it keeps by default, of a graph whose sources all end: what is
/// computed from such a view is not computed from all of its rows. Who has given `retention.rows` knows.
pub fn cut_short(graph: &Graph) -> Vec<Problem> {
    let rows = rows_at_most(graph);
    let mut warnings = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Operator::Sink(sink) = &node.operator else { continue };
        let SinkConnector::View(view) = &sink.connector else { continue };
        let keeps = ViewOptions::RETENTION_ROWS;
        if !sink.primary_key.is_empty()
            || view.retention_rows.is_some()
            || rows[index].is_some_and(|rows| rows <= keeps)
        {
            continue;
        }
        let name = sink.view_name().unwrap_or(&sink.table);
        let message = format!("the view {name} has no key and keeps the last {keeps} rows; rows beyond are removed");
        warnings.push(
            Problem::new("view_keeps_last_rows", message)
                .hint("set retention.rows, or a PRIMARY KEY")
                .pointer(format!("/nodes/{index}/connector")),
        );
    }
    warnings
}

/// By node, an upper bound of the rows that leave it (of sinks: that enter it), in a run whose sources all end; `None`: nothing is known.
fn rows_at_most(graph: &Graph) -> Vec<Option<u64>> {
    let mut rows: Vec<Option<u64>> = vec![None; graph.nodes.len()];
    let places: std::collections::HashMap<&str, usize> =
        graph.nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect();
    for index in graph.ordered().unwrap_or_default() {
        let node = &graph.nodes[index];
        let inputs = || node.inputs.iter().map(|id| places.get(id.as_str()).and_then(|place| rows[*place]));
        let all = || inputs().try_fold(0u64, |sum, rows| Some(sum.saturating_add(rows?)));
        rows[index] = match &node.operator {
            Operator::Source(source) => match &source.connector {
                SourceConnector::Datagen(options) => options.number_of_rows,
                _ => None,
            },
            Operator::Project(_) | Operator::Filter(_) | Operator::Watermark(_) | Operator::Union(_) => all(),
            Operator::Sink(_) => all(),
            Operator::Aggregate(aggregate) if aggregate.keys.is_empty() => Some(1),
            Operator::Aggregate(_) => all(),
            Operator::WindowAssign(graph::WindowAssign { window })
            | Operator::WindowAggregate(graph::WindowAggregate { window, .. }) => match window {
                Window::Tumble { .. } | Window::Session { .. } | Window::Attached {} => all(),
                // A row is in several.
                Window::Hop { .. } | Window::Cumulate { .. } => None,
            },
            Operator::Sort(sort) => match (all(), sort.limit) {
                (Some(rows), Some(limit)) => Some(rows.min(limit)),
                (rows, limit) => rows.or(limit),
            },
            // Where every source ends, no row is late.
            Operator::LateRows(_) => Some(0),
            Operator::DeadLetters(_) => None,
        };
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The warnings of a script with these options of the generator and of the view, and this query.
    fn warned(source: &str, view: &str, query: &str) -> Vec<String> {
        let script = format!(
            "CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen'{source});
             CREATE TABLE v (n BIGINT{view});
             INSERT INTO v {query};"
        );
        let script = sql::plan(&script, &sql::Options::default()).unwrap();
        cut_short(&script.graph).into_iter().map(|warning| format!("{} {}", warning.code, warning.message)).collect()
    }

    #[test]
    fn a_view_that_may_lose_rows_is_told_and_no_other() {
        const PLAIN: &str = ") WITH ('connector' = 'view'";
        const MANY: &str = ", 'number-of-rows' = '100001'";
        let all = "SELECT n FROM s";
        let told = warned(MANY, PLAIN, all);
        assert_eq!(
            told,
            ["view_keeps_last_rows the view v has no key and keeps the last 100000 rows; rows beyond are removed"]
        );
        let hop = "SELECT COUNT(*) FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '2' SECOND)) GROUP BY window_start, window_end";
        let few = ", 'number-of-rows' = '60000'";
        for (source, query) in
            [(few, "SELECT n FROM s UNION ALL SELECT n FROM s"), (few, hop), (MANY, "SELECT n FROM s WHERE n > 5")]
        {
            assert_eq!(warned(source, PLAIN, query).len(), 1, "{query}");
        }
        for (source, view, query) in [
            (", 'number-of-rows' = '100000'", PLAIN, all),
            (MANY, PLAIN, "SELECT n FROM s ORDER BY n LIMIT 10"),
            (MANY, PLAIN, "SELECT COUNT(*) FROM s"),
            (MANY, ") WITH ('connector' = 'view', 'retention.rows' = '10'", all),
            (MANY, ", PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'view'", all),
        ] {
            assert_eq!(warned(source, view, query), Vec::<String>::new(), "{view} {query}");
        }
    }
}
