use std::collections::BTreeMap;

use crate::testing::{Random, Row, changes, definition, texts};
use crate::{Query, Retention, ViewDefinition, ViewError, ViewSnapshot, ViewTable};

fn all(snapshot: &ViewSnapshot) -> Vec<String> {
    let mut rows: Vec<String> = snapshot.batches().flat_map(|batch| texts(&batch.unwrap())).collect();
    if snapshot.definition.is_keyed() {
        rows.sort();
    }
    rows
}

fn text(row: &Row) -> String {
    texts(&crate::testing::batch(std::slice::from_ref(row))).remove(0)
}

/// Cuts changes into batches at random places.
fn cut(rows: &[(u8, Row)], random: &mut Random) -> Vec<crate::Changes> {
    let mut batches = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (first, after) = rest.split_at(1 + random.below(rest.len().min(700) as u64) as usize);
        batches.push(changes(first));
        rest = after;
    }
    batches
}

fn check(table: &ViewTable, model: &BTreeMap<i64, Row>, what: &str) {
    let mut expected: Vec<String> = model.values().map(text).collect();
    expected.sort();
    let snapshot = table.snapshot();
    assert_eq!(all(&snapshot), expected, "{what}");
    assert_eq!((snapshot.rows, table.rows()), (expected.len() as u64, expected.len() as u64), "{what}");
}

#[test]
fn rows_and_changes_of_one_worker_fold_to_the_last_row_per_key() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let keys = [3, 50, 5000][seed as usize % 3];
        let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
        let mut model: BTreeMap<i64, Row> = BTreeMap::new();
        let mut earlier: Vec<(ViewSnapshot, Vec<String>)> = vec![];
        for epoch in 1..40 {
            let mut rows: Vec<(u8, Row)> = vec![];
            for _ in 0..random.below(300) {
                let row = random.row(keys);
                // In even epochs, rows of an input that only adds: they replace each other. In odd ones, changes.
                match model.get(&row.0).cloned() {
                    Some(before) if epoch % 2 == 1 && random.below(3) == 0 => {
                        rows.push((3, before));
                        model.remove(&row.0);
                    }
                    Some(before) if epoch % 2 == 1 => {
                        rows.extend([(1, before), (2, row.clone())]);
                        model.insert(row.0, row);
                    }
                    _ => {
                        rows.push((0, row.clone()));
                        model.insert(row.0, row);
                    }
                }
            }
            table.apply(epoch, Some(epoch as i64), 7, &cut(&rows, &mut random)).unwrap();
            check(&table, &model, &format!("seed {seed}, epoch {epoch}"));
            earlier.push((table.snapshot(), all(&table.snapshot())));
        }
        for (snapshot, rows) in earlier {
            assert_eq!(all(&snapshot), rows, "epoch {} is still what it was", snapshot.epoch);
        }
    }
}

#[test]
fn the_order_of_workers_does_not_matter_where_keys_are_unique_at_the_end() {
    // Things move between keys: the worker of a thing takes its row from one key and puts it to another.
    for seed in 0..60 {
        let mut random = Random(1000 + seed);
        let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
        let workers = 1 + seed % 4;
        // Several things have equal rows but for the key, so rows of one key are often equal.
        let mut at: Vec<i64> = (0..12).collect();
        let row = |thing: usize, key: i64| -> Row { (key, Some(format!("s{}", thing % 2)), None) };
        let mut model: BTreeMap<i64, Row> = BTreeMap::new();
        let first: Vec<(u8, Row)> = (0..12).map(|thing| (0, row(thing, thing as i64))).collect();
        table.apply(1, None, 0, &[changes(&first)]).unwrap();
        for epoch in 2..30 {
            // Any exchange of places, in steps that meet on the way.
            let mut by_worker: Vec<Vec<(u8, Row)>> = vec![vec![]; workers as usize];
            let mut target = at.clone();
            for place in (1..target.len()).rev() {
                target.swap(place, random.below(place as u64 + 1) as usize);
            }
            for thing in 0..at.len() {
                let steps = &mut by_worker[thing % workers as usize];
                let mut here = at[thing];
                for step in 0..1 + random.below(3) {
                    let next = if step == 0 { target[thing] } else { random.below(14) as i64 };
                    steps.extend([(1, row(thing, here)), (2, row(thing, next))]);
                    here = next;
                }
                if here != target[thing] {
                    steps.extend([(1, row(thing, here)), (2, row(thing, target[thing]))]);
                }
            }
            at = target;
            let in_order: Vec<(u8, Row)> = by_worker.concat();
            table.apply(epoch, None, 0, &cut(&in_order, &mut random)).unwrap();
            model = at.iter().enumerate().map(|(thing, key)| (*key, row(thing, *key))).collect();
            check(&table, &model, &format!("seed {seed}, epoch {epoch}"));
        }
        assert_eq!(model.len(), 12);
    }
}

#[test]
fn retractions_of_rows_that_are_not_there_change_nothing() {
    let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
    let row = |key: i64, text: &str| -> Row { (key, Some(text.into()), None) };
    table.apply(1, None, 0, &[changes(&[(0, row(1, "a")), (3, row(2, "b")), (3, row(1, "other"))])]).unwrap();
    assert_eq!(all(&table.snapshot()), ["1|a|NULL"]);
    // In a later epoch nothing is left of them.
    table.apply(2, None, 0, &[changes(&[(0, row(2, "b"))])]).unwrap();
    assert_eq!(all(&table.snapshot()), ["1|a|NULL", "2|b|NULL"]);
    table.apply(3, None, 0, &[changes(&[(3, row(1, "a")), (3, row(2, "b"))])]).unwrap();
    assert_eq!((all(&table.snapshot()), table.rows()), (vec![], 0));
}

#[test]
fn many_small_epochs_stay_few_chunks_and_little_memory() {
    let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
    let mut random = Random(5);
    for epoch in 1..3000 {
        let rows: Vec<(u8, Row)> = (0..20).map(|_| (0, random.row(1000))).collect();
        table.apply(epoch, None, 0, &[changes(&rows)]).unwrap();
    }
    let snapshot = table.snapshot();
    assert_eq!(snapshot.rows, 1000);
    assert!(snapshot.chunks.len() < 100, "{} chunks", snapshot.chunks.len());
    let held: usize = snapshot.chunks.iter().map(|chunk| chunk.rows.num_rows()).sum();
    assert!(held < 3000, "{held} rows are held for 1000");
    assert!(table.bytes() < 300_000, "{} bytes", table.bytes());
}

#[test]
fn keys_of_several_columns_take_null_zero_and_nan_as_sql_does() {
    let mut table = ViewTable::new(definition("v", &["s", "x"])).unwrap();
    let rows =
        [(1, None, Some(0.0)), (2, None, Some(-0.0)), (3, None, None), (4, None, None), (5, None, Some(f64::NAN))];
    let rows: Vec<(u8, Row)> = rows.into_iter().map(|row| (0, row)).collect();
    table.apply(1, None, 0, &[changes(&rows)]).unwrap();
    assert_eq!(all(&table.snapshot()), ["2|NULL|-0.0", "4|NULL|NULL", "5|NULL|NaN"]);
}

#[test]
fn added_rows_stay_in_order_and_the_oldest_go() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let retention = Retention { rows: 1 + random.below(2000), age_us: (seed % 2 == 0).then_some(10) };
        let mut table = ViewTable::new(ViewDefinition { retention, ..definition("v", &[]) }).unwrap();
        let mut model: Vec<(i64, String)> = vec![];
        let mut came = 0;
        for epoch in 1..60 {
            let at = epoch as i64 * 3;
            let rows: Vec<(u8, Row)> = (0..random.below(500)).map(|_| (0, random.row(9))).collect();
            came += rows.len();
            model.extend(rows.iter().map(|(_, row)| (at, text(row))));
            let excess = model.len().saturating_sub(retention.rows as usize);
            model.drain(..excess);
            model.retain(|(arrived, _)| retention.age_us.is_none_or(|age| arrived + age >= at));
            table.apply(epoch, None, at, &cut(&rows, &mut random)).unwrap();
            let expected: Vec<&String> = model.iter().map(|(_, text)| text).collect();
            let snapshot = table.snapshot();
            assert_eq!(all(&snapshot).iter().collect::<Vec<_>>(), expected, "seed {seed}, epoch {epoch}");
            assert_eq!((snapshot.rows, snapshot.dropped), (model.len() as u64, (came - model.len()) as u64));
        }
        let held = table.bytes();
        assert!(held < 60 * (2 * retention.rows + 1000), "{held} bytes for {} rows", retention.rows);
    }
}

#[test]
fn views_without_a_key_refuse_changes() {
    let mut table = ViewTable::new(definition("v", &[])).unwrap();
    let error = table.apply(1, None, 0, &[changes(&[(0, (1, None, None)), (3, (1, None, None))])]).unwrap_err();
    assert_eq!(error.code(), "view_takes_no_updates");
    assert!(error.hint().unwrap().contains("PRIMARY KEY"));
}

#[test]
fn a_view_beyond_its_limit_is_refused_and_what_was_shown_stays() {
    for key in [vec![], vec!["k"]] {
        let mut table = ViewTable::new(ViewDefinition { max_bytes: 100_000, ..definition("big", &key) }).unwrap();
        let rows = |from: i64, count: i64| -> Vec<(u8, Row)> {
            (from..from + count).map(|key| (0, (key, Some("0123456789".repeat(5)), None))).collect()
        };
        table.apply(1, None, 0, &[changes(&rows(0, 200))]).unwrap();
        let before = table.snapshot();
        let error = table.apply(2, None, 0, &[changes(&rows(200, 5000))]).unwrap_err();
        assert!(matches!(&error, ViewError::TooLarge { max: 100_000, .. }), "{error}");
        assert!(error.to_string().contains("view big has") && error.hint().unwrap().contains("view.max-bytes"));
        // Rows of a view with a key are not removed: the option would be refused.
        assert_eq!(error.hint().unwrap().contains("retention.rows"), key.is_empty());
        assert_eq!(before.query(&Query { limit: 100_000, ..Query::default() }).unwrap().rows.num_rows(), 200);
    }
    // Rows that were replaced do not count, however many there were.
    let mut table = ViewTable::new(ViewDefinition { max_bytes: 100_000, ..definition("v", &["k"]) }).unwrap();
    for epoch in 1..200 {
        let rows: Vec<(u8, Row)> = (0..300).map(|key| (0, (key, Some(format!("text number {epoch}")), None))).collect();
        table.apply(epoch, None, 0, &[changes(&rows)]).unwrap();
    }
    assert_eq!(table.rows(), 300);
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let error = ViewTable::new(definition("v", &["q"])).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "view v: the key column q is no column of it");
    let mut with_map = definition("v", &["s"]);
    with_map.columns.columns[1].data_type = "MAP<STRING, INT>".parse().unwrap();
    assert_eq!(ViewTable::new(with_map).map(drop).unwrap_err().code(), "invalid_view_key");
    assert_eq!(ViewTable::new(definition("../v", &[])).map(drop).unwrap_err().code(), "invalid_view_name");
}
