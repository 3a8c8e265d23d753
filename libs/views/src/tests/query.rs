use std::cmp::Ordering;

use crate::testing::{Random, Row, batch, changes, definition, texts};
use crate::{Form, OrderBy, Query, ViewError, ViewSnapshot, ViewTable};

fn view(key: &[&str], rows: &[Row], cuts: usize) -> ViewSnapshot {
    let mut table = ViewTable::new(definition("v", key)).unwrap();
    for (epoch, part) in rows.chunks(cuts).enumerate() {
        let part: Vec<(u8, Row)> = part.iter().map(|row| (0, row.clone())).collect();
        table.apply(epoch as u64 + 1, None, 0, &[changes(&part)]).unwrap();
    }
    table.snapshot()
}

fn by(column: &str, descending: bool, nulls_first: Option<bool>) -> OrderBy {
    OrderBy { column: column.into(), descending, nulls_first }
}

/// SQL's order of values, NULL apart.
fn compare<T>(
    a: &Option<T>,
    b: &Option<T>,
    descending: bool,
    nulls_first: bool,
    values: impl Fn(&T, &T) -> Ordering,
) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, _) => {
            if nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (_, None) => {
            if nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (Some(a), Some(b)) => {
            if descending {
                values(a, b).reverse()
            } else {
                values(a, b)
            }
        }
    }
}

fn floats(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[test]
fn answers_are_those_of_a_plain_filter_and_sort() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let keyed = seed % 2 == 0;
        let rows: Vec<Row> = (0..random.below(3000)).map(|_| random.row(if keyed { 900 } else { 20 })).collect();
        let snapshot = view(if keyed { &["k"] } else { &[] }, &rows, 1 + random.below(700) as usize);
        let mut model: Vec<Row> = rows;
        if keyed {
            let last: std::collections::BTreeMap<i64, Row> = model.into_iter().map(|row| (row.0, row)).collect();
            model = last.into_values().collect();
        }
        let order = match random.below(4) {
            0 => vec![],
            1 => vec![by("s", random.below(2) == 0, None)],
            2 => vec![by("x", random.below(2) == 0, Some(random.below(2) == 0)), by("S", true, Some(false))],
            _ => vec![by("k", true, None), by("x", false, None)],
        };
        model.sort_by(|a, b| {
            let one = |by: &OrderBy| {
                let nulls_first = by.nulls_first.unwrap_or(!by.descending);
                match by.column.as_str() {
                    "k" => compare(&Some(a.0), &Some(b.0), by.descending, nulls_first, i64::cmp),
                    "x" => compare(&a.2, &b.2, by.descending, nulls_first, floats),
                    _ => compare(&a.1, &b.1, by.descending, nulls_first, String::cmp),
                }
            };
            order
                .iter()
                .map(one)
                .find(|order| order.is_ne())
                .unwrap_or_else(|| if keyed { a.0.cmp(&b.0) } else { Ordering::Equal })
        });
        let filter = match random.below(3) {
            0 => None,
            1 => Some((
                "x >= 1 OR s = 's1'",
                Box::new(|row: &Row| {
                    // NaN compares with nothing, and NULL decides nothing.
                    row.2.is_some_and(|x| x >= 1.0) || row.1.as_deref() == Some("s1")
                }) as Box<dyn Fn(&Row) -> bool>,
            )),
            _ => Some(("s IS NULL AND MOD(k, 3) = 1", Box::new(|row: &Row| row.1.is_none() && row.0 % 3 == 1) as _)),
        };
        let (offset, limit) = ([0, random.below(50), random.below(4000)][random.below(3) as usize], random.below(400));
        let query = Query {
            columns: vec!["x".into(), "K".into()],
            filter: filter.as_ref().map(|(text, _)| text.to_string()),
            order_by: order,
            limit,
            offset,
        };
        let matching: Vec<&Row> =
            model.iter().filter(|row| filter.as_ref().is_none_or(|(_, keep)| keep(row))).collect();
        let expected: Vec<Row> =
            matching.iter().skip(offset as usize).take(limit as usize).map(|row| (*row).clone()).collect();
        let answer = snapshot.query(&query).unwrap();
        let expected_texts = texts(&batch(&expected).project(&[2, 0]).unwrap());
        assert_eq!(texts(&answer.rows), expected_texts, "seed {seed}: {query:?}");
        assert_eq!(answer.more, matching.len() as u64 > offset + limit, "seed {seed}: {query:?}");
    }
}

#[test]
fn rows_that_have_gone_are_not_asked() {
    let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
    let row = |key: i64, x: f64| -> Row { (key, Some(format!("{key}")), Some(x)) };
    table
        .apply(1, None, 0, &[changes(&[(0, row(1, 0.0)), (0, row(2, 2.0)), (0, row(3, 4.0)), (0, row(4, 1.0))])])
        .unwrap();
    table.apply(2, None, 0, &[changes(&[(0, row(1, 1.0))])]).unwrap();
    let query = Query { filter: Some("1 / CAST(x AS INT) > 0".into()), ..Query::default() };
    assert_eq!(texts(&table.snapshot().query(&query).unwrap().rows), ["1|1|1.0", "4|4|1.0"], "1 / 0 has gone");
    table.apply(3, None, 0, &[changes(&[(0, row(5, 0.0))])]).unwrap();
    let error = table.snapshot().query(&query).unwrap_err();
    assert!(matches!(error, ViewError::FilterFailed(_)), "{error}");
}

#[test]
fn wrong_questions_are_refused_by_name() {
    let snapshot = view(&[], &[(1, None, None)], 1);
    let ask = |query: Query| snapshot.query(&query).map(drop).unwrap_err();
    let query = Query::default;
    for (query, code, message, hint) in [
        (
            Query { columns: vec!["kk".into()], ..query() },
            "unknown_column",
            "view v has no column kk",
            "did you mean k?",
        ),
        (
            Query { order_by: vec![by("xx", false, None)], ..query() },
            "unknown_column",
            "no column xx",
            "did you mean x?",
        ),
        (Query { filter: Some("q = 1".into()), ..query() }, "unknown_column", "the filter is wrong", ""),
        (Query { filter: Some("k +".into()), ..query() }, "syntax_error", "the filter is wrong", ""),
        (Query { filter: Some("k".into()), ..query() }, "type_mismatch", "the filter is a BIGINT", "compare"),
        (Query { filter: Some("a".repeat(100_000)), ..query() }, "filter_too_long", "100000 bytes", "SQL"),
        (
            Query { filter: Some(format!("{}k{} = 1", "(".repeat(500), ")".repeat(500))), ..query() },
            "query_too_complex",
            "",
            "",
        ),
        (Query { limit: 100_001, ..query() }, "limit_out_of_range", "100001", "pages"),
        (Query { offset: 1_000_001, ..query() }, "offset_out_of_range", "1000001", "key"),
    ] {
        let error = ask(query.clone());
        assert_eq!((error.code(), error.fault()), (code, crate::Fault::User), "{error}");
        assert!(
            error.to_string().contains(message) && error.hint().unwrap_or_default().contains(hint),
            "{error}: {:?}",
            error.hint()
        );
    }
    assert!(serde_json::from_str::<Query>(r#"{"limt": 1}"#).is_err());
    assert_eq!(serde_json::from_str::<Query>("{}").unwrap(), query());
}

#[test]
fn answers_are_written_as_json_csv_and_arrow() {
    let rows: Vec<Row> = vec![(1, Some("a\"\n,".into()), Some(f64::NAN)), (2, None, Some(-0.5))];
    let snapshot = view(&["k"], &rows, 2);
    let schema = snapshot.schema.clone();
    let written = |form: Form, batches: Vec<_>| -> Vec<u8> {
        form.encode(&schema, batches.into_iter().map(Ok)).unwrap().flat_map(|piece| piece.unwrap()).collect()
    };
    let text = |form, batches| String::from_utf8(written(form, batches)).unwrap();
    let some = || vec![batch(&rows[..1]), batch(&[]), batch(&rows[1..])];
    assert_eq!(
        text(Form::Json, some()),
        "[{\"k\":1,\"s\":\"a\\\"\\n,\",\"x\":\"NaN\"},\n{\"k\":2,\"s\":null,\"x\":-0.5}]\n"
    );
    assert_eq!(text(Form::Json, vec![]), "[]\n");
    assert_eq!(text(Form::Csv, some()), "k,s,x\n1,\"a\"\"\n,\",NaN\n2,,-0.5\n");
    assert_eq!(text(Form::Csv, vec![]), "k,s,x\n");
    for batches in [some(), vec![]] {
        let expected: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        let bytes = written(Form::Arrow, batches);
        let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
        assert_eq!(reader.schema(), schema);
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), expected);
    }
    let many: Vec<Row> = (0..20_000).map(|key| (key, None, None)).collect();
    let pieces: Vec<Vec<u8>> =
        Form::Json.encode(&schema, [Ok(batch(&many))].into_iter()).unwrap().map(Result::unwrap).collect();
    assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 400_000), "in pieces");
    let value: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 20_000);
}

#[test]
fn nested_columns_are_refused_as_csv() {
    let mut definition = definition("v", &[]);
    definition.columns.columns[1].data_type = "ARRAY<INT>".parse().unwrap();
    let schema = expr::arrow_schema(&definition.columns);
    let error = Form::Csv.encode(&schema, std::iter::empty()).map(drop).unwrap_err();
    assert!(error.code() == "form_not_possible" && error.to_string().contains("column s"), "{error}");
}
