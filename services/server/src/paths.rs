//! Local paths of a job: made whole against the directory of whoever wrote it, so that they mean the same wherever the server runs.
//!
//! Pure: whether a path is there, and allowed, is looked at by a process of its own.

use graph::{Graph, Operator, Problem, SinkConnector, SourceConnector};

/// What a request with a relative path is refused with.
pub const PATH_NOT_ABSOLUTE: &str = "path_not_absolute";

/// Makes the relative local paths of tables whole; without a base, which is absolute, each of them is a problem.
pub fn make_whole(graph: &mut Graph, base: Option<&str>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        let (table, path, reads) = match &mut node.operator {
            Operator::Source(source) => match &mut source.connector {
                SourceConnector::Filesystem(files) => (&source.table, &mut files.path, true),
                SourceConnector::Replay(replay) => (&source.table, &mut replay.files.path, true),
                // What a server has put down, and what reads no files.
                SourceConnector::ViewSnapshot(_) | SourceConnector::Datagen(_) | SourceConnector::Kafka(_) => continue,
            },
            Operator::Sink(sink) => match &mut sink.connector {
                SinkConnector::Filesystem(files) => (&sink.table, &mut files.path, false),
                SinkConnector::Print(_)
                | SinkConnector::Blackhole(_)
                | SinkConnector::Kafka(_)
                | SinkConnector::Postgres(_)
                | SinkConnector::View(_) => continue,
            },
            _ => continue,
        };
        if !is_relative(path) {
            continue;
        }
        match base {
            Some(base) => *path = joined(base, path, reads),
            None => {
                let message =
                    format!("the path '{path}' of table {table} is relative, and nothing says where it begins");
                problems.push(
                    Problem::new(PATH_NOT_ABSOLUTE, message)
                        .hint("write the whole path, from / on; or give base_directory, where relative paths begin")
                        .pointer(format!("/nodes/{index}/connector/path")),
                );
            }
        }
    }
    problems
}

/// Whether where a path leads depends on where it is read. What has another scheme is no local path; what is empty is no path.
fn is_relative(path: &str) -> bool {
    let local = path.strip_prefix("file://").unwrap_or(path);
    !(local.is_empty() || local.starts_with('/') || local.contains("://"))
}

fn joined(base: &str, path: &str, reads: bool) -> String {
    let (scheme, path) = path.strip_prefix("file://").map_or(("", path), |rest| ("file://", rest));
    let mut path = path;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    let path = if path == "." { "" } else { path };
    let special = ['*', '?', '['];
    // In a pattern the names of the base stand for themselves.
    let base: String = match reads && path.contains(special) {
        true => base.chars().map(|c| if special.contains(&c) { format!("[{c}]") } else { c.to_string() }).collect(),
        false => base.to_string(),
    };
    format!("{scheme}{}/{path}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_local_paths_are_made_whole() {
        for (path, whole) in [
            ("x.parquet", "/a/b/x.parquet"),
            ("./x/y/", "/a/b/x/y/"),
            (".", "/a/b/"),
            ("../x", "/a/b/../x"),
            ("file://x", "file:///a/b/x"),
        ] {
            assert!(is_relative(path), "{path}");
            assert_eq!(joined("/a/b/", path, true), whole);
        }
        for path in ["/x", "file:///x", "s3://b/x", "s3a://b/x", "gs://b/x", ""] {
            assert!(!is_relative(path), "{path}");
        }
    }

    #[test]
    fn a_base_is_no_pattern() {
        assert_eq!(joined("/a[1]*", "x*.json", true), "/a[[]1][*]/x*.json");
        assert_eq!(joined("/a[1]*", "x.json", true), "/a[1]*/x.json");
        assert_eq!(joined("/", "x*.json", true), "/x*.json");
    }
}
