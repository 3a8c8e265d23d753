//! Filters, projections and sorting.

#![allow(clippy::unwrap_used)]

use arrow::array::UInt32Array;

use super::factory;
use super::sort::Sort;
use super::testing::*;
use crate::batch::{Batch, Origin};
use crate::operator::{Operator, Output, Stateless};
use crate::plan::{SortColumn, SortSpec, Step};

const ROWS: &str = "k STRING, v BIGINT";

fn filter(predicate: &str) -> Step {
    Step::Filter(predicate.into())
}

fn project(columns: &[(&str, &str)], output: &str) -> Step {
    let columns = columns.iter().map(|(name, expr)| graph::NamedExpr { name: (*name).into(), expr: (*expr).into() });
    Step::Project(columns.collect(), schema(output))
}

fn steps(steps: &[Step]) -> Box<dyn Stateless> {
    factory::steps(steps, &schema(ROWS), &expr::Env::default(), "it", &names()).unwrap()
}

fn mapped(parts: &[Step], batch: Batch) -> (String, u64) {
    let mut out = Output::new();
    steps(parts).map(batch, 0, &mut out).unwrap();
    (text(&out.take()), out.counters.filtered)
}

#[test]
fn filters_and_projections_follow_one_another() {
    let parts = [
        filter("v > 1"),
        project(&[("w", "v * 10"), ("name", "k")], "w BIGINT, name STRING"),
        filter("w < 50"),
        filter("name <> 'c'"),
        project(&[("name", "name"), ("w", "w"), ("one", "1")], "name STRING, w BIGINT, one INT"),
    ];
    let rows = || batch(ROWS, "a 1\nb 2\nc 3\nd 4\ne 5\nf NULL\nNULL 2");
    assert_eq!(mapped(&parts, rows()), ("b 20 1\nd 40 1".into(), 5), "NULL is not true");
    assert_eq!(
        mapped(&parts[..1], rows()),
        ("b 2\nc 3\nd 4\ne 5\nNULL 2".into(), 2),
        "without a projection all columns stay"
    );
    assert_eq!(mapped(&[filter("v > 9")], rows()), (String::new(), 7));
    assert_eq!(mapped(&[filter("v > 0")], batch(ROWS, "a 1")), ("a 1".into(), 0));
}

#[test]
fn half_of_an_update_becomes_an_insert_or_a_delete() {
    let rows = "+I a 1\n-U b 2\n+U b 3\n-U c 4\n+U c 1\n-U d 1\n+U d 0\n-U e 7\n+U e 8\n-D f 9\n-D g 0";
    let (found, filtered) = mapped(&[filter("v >= 3")], batch(ROWS, rows));
    assert_eq!(found, "+I b 3\n-D c 4\n-U e 7\n+U e 8\n-D f 9");
    assert_eq!(filtered, 6);
    let halves = "+U a 5\n-U b 6";
    let (found, _) = mapped(&[filter("v >= 5"), project(&[("v", "v")], "v BIGINT")], batch(ROWS, halves));
    assert_eq!(found, "+U 5\n-U 6", "halves whose other half is in another batch stay");
}

#[test]
fn rows_keep_their_origin() {
    let origin = Origin { splits: UInt32Array::from(vec![1, 1, 2]), positions: vec![5, 6, 0].into() };
    let rows = Batch { origin: Some(origin), ..batch(ROWS, "a 1\nb 2\nc 3") };
    let mut out = Output::new();
    steps(&[filter("v <> 2"), project(&[("w", "v + 1")], "w BIGINT")]).map(rows, 0, &mut out).unwrap();
    let origin = out.take().remove(0).origin.unwrap();
    assert_eq!((origin.splits, origin.positions), (UInt32Array::from(vec![1, 2]), vec![5, 0].into()));
}

#[test]
fn an_error_names_the_row_and_where_it_came_from() {
    let origin = Origin { splits: UInt32Array::from(vec![4, 4, 4]), positions: vec![70, 71, 72].into() };
    let long = "x".repeat(100);
    let rows = Batch { origin: Some(origin), ..batch(ROWS, &format!("a 1\nb 2\n{long} 0")) };
    let columns = [("w", "10 / v"), ("k", "k")];
    let error = steps(&[filter("v <> 1"), project(&columns, "w BIGINT, k STRING")])
        .map(rows, 0, &mut Output::new())
        .unwrap_err();
    assert_eq!((error.code.as_str(), error.operator.as_deref()), ("expression_failed", Some("it")));
    for part in ["v = 0", "xxx...", "record 72 of split-4 of source"] {
        assert!(error.message.contains(part), "{part} in {}", error.message);
    }
    // A column that nobody reads behind the filter holds other rows by then, so it is not shown.
    let error = steps(&[filter("v <> 1"), project(&columns[..1], "w BIGINT")])
        .map(batch(ROWS, "a 1\nb 2\nc 0"), 0, &mut Output::new())
        .unwrap_err();
    assert!(error.message.ends_with("row: v = 0"), "{}", error.message);
    // A row that the filter takes out is never divided by.
    let fine = batch(ROWS, "a 0\nb 2");
    assert_eq!(mapped(&[filter("v <> 0"), project(&[("w", "10 / v")], "w BIGINT")], fine).0, "5");
}

fn sort(by: &[(usize, bool, bool)], limit: Option<u64>, offset: u64, drop_last: usize) -> SortSpec {
    let by = by.iter().map(|&(column, descending, nulls_first)| SortColumn { column, descending, nulls_first });
    SortSpec { by: by.collect(), limit, offset, drop_last }
}

fn sorted_rows(spec: SortSpec, rows: &[&str]) -> String {
    let mut sort = Sort::new(spec, true);
    let mut out = Output::new();
    for rows in rows {
        sort.process(0, batch(ROWS, rows), 0, &mut out).unwrap();
        sort.watermark(7, &mut out).unwrap_or_default();
        sort.epoch_end(0, &mut out).unwrap();
    }
    assert!(out.main.is_empty());
    sort.watermark(i64::MAX, &mut out).unwrap();
    text(&out.take())
}

#[test]
fn rows_are_ordered_and_ties_broken_by_the_other_columns() {
    let rows = ["b 2\na 2\nc NULL", "d 1\nNULL 2\ne -3"];
    assert_eq!(sorted_rows(sort(&[(1, false, true)], None, 0, 0), &rows), "c NULL\ne -3\nd 1\nNULL 2\na 2\nb 2");
    assert_eq!(sorted_rows(sort(&[(1, true, false)], None, 0, 0), &rows), "NULL 2\na 2\nb 2\nd 1\ne -3\nc NULL");
    assert_eq!(sorted_rows(sort(&[(1, true, false)], Some(2), 1, 0), &rows), "a 2\nb 2");
    assert_eq!(sorted_rows(sort(&[(1, true, false)], Some(9), 5, 1), &rows), "c");
    assert_eq!(sorted_rows(sort(&[(1, true, false)], Some(0), 0, 0), &rows), "");
    assert_eq!(sorted_rows(sort(&[(1, true, false)], None, 99, 0), &rows), "");
    assert_eq!(sorted_rows(sort(&[], Some(2), 0, 0), &rows), "NULL 2\na 2", "a limit alone is deterministic too");
    assert_eq!(sorted_rows(sort(&[(0, false, true)], None, 0, 0), &[]), "");
}

#[test]
fn a_limit_keeps_few_rows_and_a_restart_loses_none() {
    let mut random = Random(5);
    let values: Vec<u64> = (0..60_000).map(|_| random.below(1_000_000)).collect();
    let spec = sort(&[(1, true, false)], Some(10), 5, 0);
    let mut operator = Sort::new(spec.clone(), true);
    let mut largest = 0;
    for (at, values) in values.chunks(1000).enumerate() {
        let lines: Vec<String> = values.iter().map(|value| format!("x {value}")).collect();
        operator.process(0, batch(ROWS, &lines.join("\n")), 0, &mut Output::new()).unwrap();
        largest = largest.max(operator.held_rows());
        if at % 20 == 7 {
            let store = saved(&mut [&mut operator]);
            let mut elsewhere = Sort::new(spec.clone(), false);
            elsewhere.restore(&store.reader("it", 1, 2)).unwrap();
            assert_eq!(elsewhere.held_rows(), 0, "worker 0 has all rows");
            operator = Sort::new(spec.clone(), true);
            operator.restore(&store.reader("it", 0, 2)).unwrap();
        }
    }
    assert!(largest <= 8192 + 1000, "{largest} rows were held for 15");
    let found = text(&sent(|out| operator.watermark(i64::MAX, out)));
    let mut best = values;
    best.sort_unstable_by(|a, b| b.cmp(a));
    let best: Vec<String> = best[5..15].iter().map(|value| format!("x {value}")).collect();
    assert_eq!(found, best.join("\n"));
    // A restart after the end does not repeat it.
    let store = saved(&mut [&mut operator]);
    let mut again = Sort::new(spec, true);
    again.restore(&store.reader("it", 0, 1)).unwrap();
    assert!(sent(|out| again.watermark(i64::MAX, out)).is_empty());
}
