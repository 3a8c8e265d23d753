//! What folding and asking cost; the figures are shown with `--nocapture`.

use std::time::{Duration, Instant};

use crate::testing::{Random, Row, changes, definition, texts};
use crate::{OrderBy, Query, ViewTable};

/// Tells the figures, and fails only if something grows with the square of the rows.
#[test]
fn folding_and_asking_take_time_in_proportion_to_their_rows() {
    let mut random = Random(1);
    let batch =
        |keys: u64, random: &mut Random| changes(&(0..8192).map(|_| (0, random.row(keys))).collect::<Vec<(u8, Row)>>());
    let made: Vec<_> = (0..60).map(|_| batch(100_000, &mut random)).collect();
    for key in [vec!["k"], vec![]] {
        let mut table = ViewTable::new(definition("v", &key)).unwrap();
        let begun = Instant::now();
        for (epoch, changes) in made.iter().enumerate() {
            table.apply(epoch as u64 + 1, None, 0, std::slice::from_ref(changes)).unwrap();
            drop(table.snapshot());
        }
        let took = begun.elapsed();
        let rate = made.len() as f64 * 8192.0 / took.as_secs_f64();
        eprintln!("key {key:?}: {rate:.0} rows/s folded; {} rows, {} bytes held", table.rows(), table.bytes());
        let snapshot = table.snapshot();
        let order = vec![OrderBy { column: "x".into(), descending: true, nulls_first: None }];
        let filter = Some("x > 1 AND s <> 's1'".to_string());
        for (what, query) in [
            ("first 1,000", Query::default()),
            ("all", Query { limit: 100_000, ..Query::default() }),
            ("top 100", Query { order_by: order, limit: 100, ..Query::default() }),
            ("filtered", Query { filter, limit: 100_000, ..Query::default() }),
        ] {
            let begun = Instant::now();
            let answer = snapshot.query(&query).unwrap();
            eprintln!("  {what}: {} rows in {:?}", answer.rows.num_rows(), begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
        }
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

/// The worst that changes of several workers can be: all rows of a key go before they come, or come before they go.
#[test]
fn many_rows_of_one_key_that_leave_and_come_take_time_in_proportion() {
    let row = |number: usize| -> Row { (1, Some(format!("row {number}")), Some(number as f64)) };
    let (all, last) = (100_000, 77_777);
    let leave = (0..all).filter(|number| *number != last).map(|number| (3, row(number)));
    let come = (0..all).rev().map(|number| (0, row(number)));
    for (what, rows) in [
        ("leave, then come", leave.clone().chain(come.clone()).collect::<Vec<(u8, Row)>>()),
        ("come, then leave", come.clone().chain(leave.clone()).collect()),
        ("come and leave in turn", come.zip(leave).flat_map(|(come, leave)| [come, leave]).collect()),
    ] {
        let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
        let missing: Vec<(u8, Row)> = (rows.len() < 2 * all - 1).then(|| (0, row(0))).into_iter().collect();
        let batches: Vec<_> = rows.chunks(8192).chain([missing.as_slice()]).map(changes).collect();
        let begun = Instant::now();
        table.apply(1, None, 0, &batches).unwrap();
        let took = begun.elapsed();
        eprintln!("{what}: {:.0} changes/s", rows.len() as f64 / took.as_secs_f64());
        let left: Vec<String> = table.snapshot().batches().flat_map(|batch| texts(&batch.unwrap())).collect();
        assert_eq!(left, ["1|row 77777|77777.0"], "{what}");
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
    }
}
