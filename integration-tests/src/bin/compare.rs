//! Compares two results (files or folders of JSON lines) as multisets of rows, and says how many rows are equal.
//!
//! `compare LEFT RIGHT` prints `bounded and streamed results are equal: N rows`, or what differs, and ends with 1 then.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::ExitCode;

use integration_tests::compare;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [left, right] = arguments.as_slice() else {
        eprintln!("usage: compare BOUNDED STREAMED");
        return ExitCode::from(2);
    };
    let read = |path: &str| compare::rows_at(Path::new(path)).and_then(|rows| compare::fold(rows, &[]));
    match (read(left), read(right)) {
        (Ok(bounded), Ok(streamed)) => match compare::same_rows(&bounded, &streamed) {
            // Two empty results agree about nothing.
            Ok(()) if bounded.is_empty() => {
                eprintln!("both results are empty: nothing was compared");
                ExitCode::FAILURE
            }
            Ok(()) => {
                println!("bounded and streamed results are equal: {} rows", bounded.len());
                ExitCode::SUCCESS
            }
            Err(report) => {
                eprintln!("bounded (<) and streamed (>) results differ: {report}");
                ExitCode::FAILURE
            }
        },
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("cannot compare: {error}");
            ExitCode::FAILURE
        }
    }
}
