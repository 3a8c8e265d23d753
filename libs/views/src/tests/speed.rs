//! What folding and asking cost; the figures are shown with `--nocapture`.

use std::time::{Duration, Instant};

use crate::testing::{Random, Row, changes, definition};
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
