use expect_test::{Expect, expect};

use super::*;

fn check(query: &str, expected: Expect) {
    expected.assert_eq(&graph(query));
}

#[test]
fn a_tumbling_count_is_one_window_aggregate() {
    check(
        "INSERT INTO out SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         WHERE price > 10 GROUP BY auction, window_start, window_end;",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            filter: where: price > 10 <- watermark
            window_aggregate: window: tumble by ts, size 10s; keys: auction; aggregates: COUNT(*) AS `count(*)` <- filter
            project: columns: auction AS k, `count(*)` AS n <- window_aggregate
            sink_out: connector: print <- project
        "#]],
    );
}

#[test]
fn a_select_goes_to_the_result() {
    check(
        "SELECT channel, price * 2 AS twice, UPPER(channel) FROM bid AS B WHERE B.price BETWEEN 1 AND 5 AND `channel` LIKE 'a%'",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        filter: where: price BETWEEN 1 AND 5 AND channel LIKE 'a%' <- watermark
        project: columns: channel, price * 2 AS twice, UPPER(channel) <- filter
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT * FROM bid",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        sink_result: connector: print <- watermark
    "#]],
    );
    check(
        "SELECT b.*, Price FROM bid b",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: auction, bidder, price, channel, ts, price AS price0 <- watermark
        sink_result: connector: print <- project
    "#]],
    );
}

#[test]
fn hop_cumulate_and_session() {
    check(
        "SELECT window_start, window_end, SUM(price) AS total FROM HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '10' MINUTE, INTERVAL '-2' MINUTE)
         GROUP BY window_start, window_end",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: hop by ts, slide 5m, size 10m, offset -2m; aggregates: SUM(price) AS `sum(price)` <- watermark
            project: columns: window_start, window_end, `sum(price)` AS total <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT window_time, MAX(price) FROM TABLE(CUMULATE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), STEP => INTERVAL '2' MINUTE, SIZE => INTERVAL '10' MINUTE))
         GROUP BY window_start, window_end, window_time",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: cumulate by ts, step 2m, size 10m; aggregates: MAX(price) AS `max(price)` <- watermark
            project: columns: window_time, `max(price)` AS `MAX(price)` <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT bidder, window_start, window_end, COUNT(*) FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '1' HOUR))
         GROUP BY bidder, window_start, window_end",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: session by ts, gap 1h; keys: bidder; aggregates: COUNT(*) AS `count(*)` <- watermark
            project: columns: bidder, window_start, window_end, `count(*)` AS `COUNT(*)` <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT COUNT(*) FROM TABLE(SESSION(TABLE bid PARTITION BY (bidder, auction), DESCRIPTOR(ts), INTERVAL '1' HOUR))
         GROUP BY auction, bidder, window_start, window_end",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: session by ts, gap 1h; keys: auction, bidder; aggregates: COUNT(*) AS `count(*)` <- watermark
            project: columns: `count(*)` AS `COUNT(*)` <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
}

#[test]
fn group_functions_of_old() {
    check(
        "SELECT TUMBLE_START(ts, INTERVAL '1' HOUR) AS s, TUMBLE_ROWTIME(ts, INTERVAL '1' HOUR) AS t, bidder, AVG(price) AS a FROM bid
         GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), bidder HAVING COUNT(*) > 3",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: tumble by ts, size 1h; keys: bidder; aggregates: AVG(price) AS `avg(price)`, COUNT(*) AS `count(*)` <- watermark
            filter: where: `count(*)` > 3 <- window_aggregate
            project: columns: window_start AS s, window_time AS t, bidder, `avg(price)` AS a <- filter
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT HOP_END(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR), COUNT(*) FROM bid GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR)",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        window_aggregate: window: hop by ts, slide 1m, size 1h; aggregates: COUNT(*) AS `count(*)` <- watermark
        project: columns: window_end AS `HOP_END(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR)`, `count(*)` AS `COUNT(*)` <- window_aggregate
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT bidder, SESSION_START(ts, INTERVAL '1' MINUTE), COUNT(*) FROM bid WHERE price > 1 GROUP BY bidder, SESSION(ts, INTERVAL '1' MINUTE)",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        filter: where: price > 1 <- watermark
        window_aggregate: window: session by ts, gap 1m; keys: bidder; aggregates: COUNT(*) AS `count(*)` <- filter
        project: columns: bidder, window_start AS `SESSION_START(ts, INTERVAL '1' MINUTE)`, `count(*)` AS `COUNT(*)` <- window_aggregate
        sink_result: connector: print <- project
    "#]],
    );
}

#[test]
fn a_window_function_without_an_aggregate_assigns() {
    check(
        "SELECT auction, window_start FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE window_start > TIMESTAMP '2020-01-01 00:00:00'",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        window_assign: window: tumble by ts, size 10s <- watermark
        filter: where: window_start > TIMESTAMP '2020-01-01 00:00:00' <- window_assign
        project: columns: auction, window_start <- filter
        sink_result: connector: print <- project
    "#]],
    );
}

#[test]
fn filters_move_to_where_they_belong() {
    check(
        "SELECT auction, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         WHERE price > 10 AND window_end > TIMESTAMP '2020-01-01 00:00:00' AND (channel = 'a' OR channel = 'b')
         GROUP BY auction, window_start, window_end HAVING COUNT(*) > 2",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            filter: where: price > 10 AND (channel = 'a' OR channel = 'b') <- watermark
            window_aggregate: window: tumble by ts, size 10s; keys: auction; aggregates: COUNT(*) AS `count(*)` <- filter
            filter2: where: window_end > TIMESTAMP '2020-01-01 00:00:00' AND `count(*)` > 2 <- window_aggregate
            project: columns: auction, `count(*)` AS n <- filter2
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT bidder, COUNT(*) AS n FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         WHERE bidder > 10 GROUP BY bidder, window_start, window_end",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: session by ts, gap 10s; keys: bidder; aggregates: COUNT(*) AS `count(*)` <- watermark
            filter: where: bidder > 10 <- window_aggregate
            project: columns: bidder, `count(*)` AS n <- filter
            sink_result: connector: print <- project
        "#]],
    );
}

#[test]
fn windows_follow_windows() {
    // The most bids per window: the windows of the inner aggregate.
    check(
        "SELECT window_start, window_end, MAX(n) AS most FROM (
            SELECT auction, window_start, window_end, COUNT(*) AS n FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
            GROUP BY auction, window_start, window_end) GROUP BY window_start, window_end",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: hop by ts, slide 2s, size 10s; keys: auction; aggregates: COUNT(*) AS `count(*)` <- watermark
            window_aggregate2: window: as attached to the rows; aggregates: MAX(`count(*)`) AS `max(count(*))` <- window_aggregate
            project: columns: window_start, window_end, `max(count(*))` AS most <- window_aggregate2
            sink_result: connector: print <- project
        "#]],
    );
    // Flink's example of cascaded windows.
    check(
        "CREATE VIEW window1 AS SELECT window_start AS s, window_end AS e, window_time AS rowtime, SUM(price) AS partial
         FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTES)) GROUP BY bidder, window_start, window_end, window_time;
         SELECT window_start, window_end, SUM(partial) AS total FROM TABLE(TUMBLE(TABLE window1, DESCRIPTOR(rowtime), INTERVAL '10' MINUTES))
         GROUP BY window_start, window_end",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: tumble by ts, size 5m; keys: bidder; aggregates: SUM(price) AS `sum(price)` <- watermark
            window_aggregate2: window: tumble by window_time, size 10m; aggregates: SUM(`sum(price)`) AS `sum(sum(price))` <- window_aggregate
            project: columns: window_start, window_end, `sum(sum(price))` AS total <- window_aggregate2
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "CREATE VIEW inner_ AS SELECT window_start AS s, window_time AS rowtime, bidder FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTES))
         GROUP BY bidder, window_start, window_end;
         SELECT s, window_start, bidder FROM TABLE(TUMBLE(TABLE inner_, DESCRIPTOR(rowtime), INTERVAL '10' MINUTES))",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: tumble by ts, size 5m; keys: bidder <- watermark
            project: columns: bidder, window_start AS window_start0, window_end AS window_end0, window_time AS window_time0 <- window_aggregate
            window_assign: window: tumble by window_time0, size 10m <- project
            project2: columns: window_start0 AS s, window_start, bidder <- window_assign
            sink_result: connector: print <- project2
        "#]],
    );
}

#[test]
fn a_group_by_without_a_window_updates() {
    check(
        "SELECT bidder, COUNT(*) AS n, SUM(price) FILTER (WHERE price > 3) AS s FROM bid GROUP BY bidder",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        aggregate: keys: bidder; aggregates: COUNT(*) AS `count(*)`, SUM(price) FILTER (WHERE price > 3) AS `sum(price)` <- watermark
        project: columns: bidder, `count(*)` AS n, `sum(price)` AS s <- aggregate
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT COUNT(*), COUNT(1), COUNT(DISTINCT bidder), AVG(price) + 1 FROM bid",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            aggregate: aggregates: AVG(price) AS `avg(price)`, COUNT(*) AS `count(*)`, COUNT(DISTINCT bidder) AS `count(distinct bidder)` <- watermark
            project: columns: `count(*)` AS `COUNT(*)`, `count(*)` AS `COUNT(1)`, `count(distinct bidder)` AS `COUNT(DISTINCT bidder)`, `avg(price)` + 1 AS `AVG(price) + 1` <- aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT price % 10 AS k, COUNT(*) AS n FROM bid GROUP BY 1",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        aggregate: keys: price % 10; aggregates: COUNT(*) AS `count(*)` <- watermark
        project: columns: `price % 10` AS k, `count(*)` AS n <- aggregate
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT price % 10 AS k, COUNT(*) AS n FROM bid GROUP BY k ORDER BY n DESC, SUM(price) LIMIT 3",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        aggregate: keys: price % 10; aggregates: COUNT(*) AS `count(*)`, SUM(price) AS `sum(price)` <- watermark
        project: columns: `price % 10` AS k, `count(*)` AS n, `sum(price)` AS sort_key <- aggregate
        sort: by: n DESC, sort_key; limit: 3 <- project
        project2: columns: k, n <- sort
        sink_result: connector: print <- project2
    "#]],
    );
    check(
        "SELECT APPROX_PERCENTILE(price, 0.9) AS p, FIRST_VALUE(price), STDDEV(price), VARIANCE(price) FROM bid GROUP BY TUMBLE(ts, INTERVAL '1' DAY)",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        window_aggregate: window: tumble by ts, size 1day; aggregates: APPROX_PERCENTILE(price, 0.9) AS `approx_percentile(price, 0.9)`, FIRST_VALUE(price) AS `first_value(price)`, STDDEV_SAMP(price) AS `stddev_samp(price)`, VAR_SAMP(price) AS `var_samp(price)` <- watermark
        project: columns: `approx_percentile(price, 0.9)` AS p, `first_value(price)` AS `FIRST_VALUE(price)`, `stddev_samp(price)` AS `STDDEV(price)`, `var_samp(price)` AS `VARIANCE(price)` <- window_aggregate
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT n, COUNT(*) AS m FROM (SELECT bidder, COUNT(*) AS n FROM bid GROUP BY bidder) GROUP BY n",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        aggregate: keys: bidder; aggregates: COUNT(*) AS `count(*)` <- watermark
        aggregate2: keys: count(*); aggregates: COUNT(*) AS `count(*)0` <- aggregate
        project: columns: `count(*)` AS n, `count(*)0` AS m <- aggregate2
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT DISTINCT bidder, channel FROM bid",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        aggregate: keys: bidder, channel <- watermark
        sink_result: connector: print <- aggregate
    "#]],
    );
}

#[test]
fn a_distinct_over_windows_keeps_them() {
    check(
        "SELECT DISTINCT bidder, window_start, window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        window_aggregate: window: tumble by ts, size 10s; keys: bidder <- watermark
        project: columns: bidder, window_start, window_end <- window_aggregate
        sink_result: connector: print <- project
    "#]],
    );
}

#[test]
fn one_bound_names_a_window_unless_it_is_shared() {
    check(
        "SELECT window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        window_aggregate: window: tumble by ts, size 10s; aggregates: COUNT(*) AS `count(*)` <- watermark
        project: columns: window_start, `count(*)` AS n <- window_aggregate
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT window_start, COUNT(*) AS n FROM TABLE(CUMULATE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '30' SECOND)) GROUP BY window_start",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_assign: window: cumulate by ts, step 10s, size 30s <- watermark
            aggregate: keys: window_start; aggregates: COUNT(*) AS `count(*)` <- window_assign
            project: columns: window_start, `count(*)` AS n <- aggregate
            sink_result: connector: print <- project
        "#]],
    );
}

#[test]
fn unions_ctes_and_order() {
    check(
        "WITH a AS (SELECT auction AS k, price FROM bid WHERE price > 1), b (k, p) AS (SELECT bidder, price FROM bid)
         SELECT k, price FROM a UNION ALL SELECT * FROM b UNION ALL SELECT 1, CAST(2 AS INT) FROM bid",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            filter: where: price > 1 <- watermark
            project: columns: auction AS k, price <- filter
            project2: columns: bidder AS k, price <- watermark
            project3: columns: CAST(1 AS BIGINT) AS k, CAST(CAST(2 AS INT) AS BIGINT) AS price <- watermark
            union:  <- project, project2, project3
            sink_result: connector: print <- union
        "#]],
    );
    check(
        "SELECT auction FROM bid UNION SELECT bidder FROM bid",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: auction <- watermark
        project2: columns: bidder AS auction <- watermark
        union:  <- project, project2
        aggregate: keys: auction <- union
        sink_result: connector: print <- aggregate
    "#]],
    );
    check(
        "SELECT channel FROM bid ORDER BY price * 2 DESC NULLS LAST, 1 LIMIT 10 OFFSET 5",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: channel, price * 2 AS sort_key <- watermark
        sort: by: sort_key DESC NULLS LAST, channel; limit: 10; offset: 5 <- project
        project2: columns: channel <- sort
        sink_result: connector: print <- project2
    "#]],
    );
    check(
        "SELECT channel FROM bid FETCH FIRST 3 ROWS ONLY",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: channel <- watermark
        sort: limit: 3 <- project
        sink_result: connector: print <- sort
    "#]],
    );
}

#[test]
fn a_computed_column_that_is_used_twice_is_computed_once() {
    check(
        "SELECT x + 1 AS a FROM (SELECT price * 2 AS x FROM bid)",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: (price * 2) + 1 AS a <- watermark
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT x + 1 AS a, x + 2 AS b FROM (SELECT price * 2 AS x FROM bid)",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: price * 2 AS x <- watermark
        project2: columns: x + 1 AS a, x + 2 AS b <- project
        sink_result: connector: print <- project2
    "#]],
    );
}

#[test]
fn tables_become_sources_projections_and_watermarks() {
    let script = planned(
        "SET 'parallelism' = '2';
         CREATE TEMPORARY TABLE IF NOT EXISTS t (
            id INT PRIMARY KEY NOT ENFORCED COMMENT 'an id', day STRING, `a b` ROW<x INT, `select` ARRAY<STRING>>, raw STRING NOT NULL,
            ts AS TO_TIMESTAMP(raw), double_id AS id * 2,
            WATERMARK FOR ts AS ts
         ) COMMENT 'a table' PARTITIONED BY (day)
         WITH ('connector' = 'replay', 'path' = 'x', 'format' = 'json', 'replay.disorder' = '5s', 'on_bad_record' = 'drop', 'null_event_time' = 'drop',
               'scan.watermark.idle-timeout' = '30s', 'max_ahead' = '1h');
         SELECT `a b`.x, t.`a b`.`select`[1] AS first_one, double_id FROM t;",
    );
    assert_eq!(script.settings["parallelism"], "2");
    expect![[r#"
        {
          "version": 1,
          "nodes": [
            {
              "id": "t",
              "type": "source",
              "table": "t",
              "connector": {
                "type": "replay",
                "path": "x",
                "format": "json",
                "json.timestamp-format.standard": "sql",
                "csv.field-delimiter": ",",
                "csv.header": true,
                "csv.null-literal": "",
                "parquet.compression": "zstd",
                "sink.rolling-policy.file-size": 134217728,
                "sink.rolling-policy.rollover-interval": "10m",
                "replay.speed": "max",
                "replay.disorder": "5s",
                "replay.seed": 0,
                "replay.then": "end",
                "replay.splits": 1
              },
              "columns": [
                {
                  "name": "id",
                  "type": "INT"
                },
                {
                  "name": "a b",
                  "type": "ROW<x INT, select ARRAY<STRING>>"
                },
                {
                  "name": "raw",
                  "type": "STRING",
                  "nullable": false
                },
                {
                  "name": "day",
                  "type": "STRING"
                }
              ],
              "on_bad_record": "drop",
              "partition_by": [
                "day"
              ]
            },
            {
              "id": "project_17b5822cd4d0",
              "inputs": [
                "t"
              ],
              "type": "project",
              "columns": [
                {
                  "name": "id",
                  "expr": "id"
                },
                {
                  "name": "day",
                  "expr": "day"
                },
                {
                  "name": "a b",
                  "expr": "`a b`"
                },
                {
                  "name": "raw",
                  "expr": "raw"
                },
                {
                  "name": "ts",
                  "expr": "TO_TIMESTAMP(raw)"
                },
                {
                  "name": "double_id",
                  "expr": "id * 2"
                }
              ]
            },
            {
              "id": "watermark_8a646566de5b",
              "inputs": [
                "project_17b5822cd4d0"
              ],
              "type": "watermark",
              "column": "ts",
              "delay": "0s",
              "idle_timeout": "30s",
              "max_ahead": "1h",
              "on_null": "drop"
            },
            {
              "id": "project_84c8c5e6703f",
              "inputs": [
                "watermark_8a646566de5b"
              ],
              "type": "project",
              "columns": [
                {
                  "name": "x",
                  "expr": "`a b`.x"
                },
                {
                  "name": "first_one",
                  "expr": "`a b`.`select`[1]"
                },
                {
                  "name": "double_id",
                  "expr": "double_id"
                }
              ]
            },
            {
              "id": "sink_result",
              "inputs": [
                "project_84c8c5e6703f"
              ],
              "type": "sink",
              "table": "result",
              "connector": {
                "type": "print"
              }
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&script.graph).unwrap());
}

#[test]
fn inserts_match_by_position_and_cast() {
    check(
        "CREATE TABLE files (k STRING, d DOUBLE, t TIMESTAMP(6), day STRING) PARTITIONED BY (day)
            WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');
         INSERT INTO files SELECT channel, price, ts, DATE_FORMAT(ts, 'yyyy-MM-dd') FROM bid;",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            project: columns: channel AS k, CAST(price AS DOUBLE) AS d, CAST(ts AS TIMESTAMP(6)) AS t, DATE_FORMAT(ts, 'yyyy-MM-dd') AS day <- watermark
            sink_files: connector: filesystem; partitioned by: day <- project
        "#]],
    );
    check(
        "INSERT INTO out (n, k) SELECT auction, bidder FROM bid",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: bidder AS k, auction AS n <- watermark
        sink_out: connector: print <- project
    "#]],
    );
    check(
        "INSERT INTO out (n) SELECT auction FROM bid",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: CAST(NULL AS BIGINT) AS k, auction AS n <- watermark
        sink_out: connector: print <- project
    "#]],
    );
    check(
        "EXECUTE STATEMENT SET BEGIN INSERT INTO out SELECT auction, bidder FROM bid; INSERT INTO out SELECT bidder, auction FROM bid; END;",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            project: columns: auction AS k, bidder AS n <- watermark
            project2: columns: bidder AS k, auction AS n <- watermark
            union:  <- project, project2
            sink_out: connector: print <- union
        "#]],
    );
    check(
        "BEGIN STATEMENT SET; INSERT INTO out SELECT auction, bidder FROM bid; END",
        expect![[r#"
        bid: connector: filesystem
        watermark: watermark: ts - 5s <- bid
        project: columns: auction AS k, bidder AS n <- watermark
        sink_out: connector: print <- project
    "#]],
    );
}

#[test]
fn the_ledgers_are_read_after_all_else() {
    check(
        "CREATE VIEW late AS SELECT operator, windows_missed FROM highwater.late_rows;
         CREATE TABLE bad (source STRING, `position` BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO bad SELECT source, `position` FROM highwater.dead_letters;
         INSERT INTO out SELECT bidder, COUNT(*) FROM bid GROUP BY bidder, TUMBLE(ts, INTERVAL '1' MINUTE);
         SELECT windows_missed AS m FROM late;
         ",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: tumble by ts, size 1m; keys: bidder; aggregates: COUNT(*) AS `count(*)` <- watermark
            project: columns: bidder AS k, `count(*)` AS n <- window_aggregate
            late_rows:  <- window_aggregate
            dead_letters:  <- bid
            project2: columns: source, position <- dead_letters
            project3: columns: windows_missed AS m <- late_rows
            sink_bad: connector: blackhole <- project2
            sink_out: connector: print <- project
            sink_result: connector: print <- project3
        "#]],
    );
}

#[test]
fn lateness_is_set_for_the_statements_after_it() {
    check(
        "SET 'table.exec.emit.allow-lateness' = '5s';
         SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction, TUMBLE(ts, INTERVAL '1' MINUTE)",
        expect![[r#"
            bid: connector: filesystem
            watermark: watermark: ts - 5s <- bid
            window_aggregate: window: tumble by ts, size 1m; keys: auction; aggregates: COUNT(*) AS `count(*)`; allowed lateness: 5s <- watermark
            project: columns: auction, `count(*)` AS n <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
}

/// What only the connector of the script has a meaning for does not stand in the way of another one.
#[test]
fn a_table_of_files_can_be_sent_to_nowhere() {
    let text = "CREATE TABLE bid (price BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3', 'on_bad_record' = 'drop');
        CREATE TABLE out (price BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv', 'csv.header' = 'false');
        INSERT INTO out SELECT price FROM bid;";
    let overrides = vec![("out".into(), "connector".into(), "blackhole".into())];
    let script = plan(text, &Options { overrides, ..Options::default() }).unwrap();
    let sink = script.graph.nodes.iter().find_map(|node| match &node.operator {
        Operator::Sink(sink) => Some(&sink.connector),
        _ => None,
    });
    assert!(matches!(sink, Some(graph::SinkConnector::Blackhole(_))), "{sink:?}");
    let mistaken =
        vec![("out".into(), "connector".into(), "blackhole".into()), ("out".into(), "path".into(), "x".into())];
    let problems = plan(text, &Options { overrides: mistaken, ..Options::default() }).unwrap_err();
    assert_eq!(problems[0].code, "unknown_option", "what is asked for by name is not left out: {problems:?}");
    let topic = "CREATE TABLE bid (price BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3');
        CREATE TABLE out (price BIGINT) WITH ('connector' = 'Kafka ', 'topic' = 't', 'value.format' = 'json',
        'properties.bootstrap.servers' = 'h:1'); INSERT INTO out SELECT price FROM bid;";
    for now in ["blackhole", " Print"] {
        let overrides = vec![("out".into(), "connector".into(), now.into())];
        plan(topic, &Options { overrides, ..Options::default() }).unwrap_or_else(|problems| panic!("{problems:?}"));
    }
}

#[test]
fn options_are_replaced_and_added() {
    let text = format!("{TABLES} SELECT price FROM bid");
    let set = |option: &str, value: &str| ("bid".to_string(), option.to_string(), value.to_string());
    let overrides = vec![set("connector", "replay"), set("replay.disorder", "3s"), set("path", "other")];
    let script = plan(&text, &Options { overrides, ..Options::default() }).unwrap();
    let source = serde_json::to_value(&script.graph.nodes[0]).unwrap();
    assert_eq!((&source["connector"]["type"], &source["connector"]["path"]), (&"replay".into(), &"other".into()));
    assert_eq!(source["connector"]["replay.disorder"], "3s");
    let wrong =
        plan(&text, &Options { overrides: vec![("bids".into(), "path".into(), "x".into())], ..Options::default() })
            .unwrap_err();
    assert_eq!((wrong[0].code.as_str(), wrong[0].hint.as_deref()), ("unknown_table", Some("did you mean bid?")));
}

#[test]
fn ids_depend_on_meaning_alone() {
    let query = "SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction, TUMBLE(ts, INTERVAL '1' MINUTE)";
    let ids = |text: String| planned(&text).graph.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
    let plain = ids(format!("{TABLES}{query}"));
    let moved = ids(format!(
        "{TABLES} INSERT INTO out SELECT bidder, 1 FROM bid; /* moved */\n\n {}",
        query.replace("SELECT", "SELECT  ")
    ));
    assert!(plain.iter().all(|id| moved.contains(id)), "{plain:?} in {moved:?}");
    let aggregates = |list: &str, keys: &str| {
        let script = planned(&format!("{TABLES} INSERT INTO out SELECT {list} FROM bid GROUP BY {keys}"));
        script.graph.nodes.into_iter().find(|node| node.operator.type_name() == "aggregate").map(|node| node.id)
    };
    assert_eq!(
        aggregates("COUNT(*), SUM(price)", "auction, bidder"),
        aggregates("SUM(price) AS s, COUNT(*) AS c", "bidder, auction")
    );
    let other = ids(format!("{TABLES}{}", query.replace("COUNT(*)", "SUM(price)")));
    assert_ne!(plain, other);
}

#[test]
fn explain_shows_the_tree_with_what_leaves_each_operator() {
    let text = format!(
        "{TABLES} INSERT INTO out SELECT auction, COUNT(*) FROM bid WHERE price > 1 GROUP BY auction, TUMBLE(ts, INTERVAL '1' MINUTE);
         EXPLAIN SELECT bidder, COUNT(*) AS n FROM bid GROUP BY bidder UNION ALL SELECT price, price FROM bid"
    );
    let script = planned(&text);
    assert!(script.explain);
    let analysis = expr::analyze(&script.graph, &graph::Settings::default()).unwrap();
    let mut shown = crate::explain(&script.graph, &analysis);
    for node in &script.graph.nodes {
        // The hash is not what this test is about.
        if let Some((kind, _)) =
            node.id.rsplit_once('_').filter(|(kind, _)| !kind.starts_with("sink") && *kind != "bid")
        {
            shown = shown.replace(&node.id, &format!("{kind}_..."));
        }
    }
    expect![[r#"
        bounded: the run ends with its input

        sink_out (sink)
        │    connector: print
        └─ project_... (project)
           │    columns: auction AS k, `count(*)` AS n
           │    -> k BIGINT NOT NULL, n BIGINT NOT NULL
           │       insert-only, no time, bounded
           └─ window_aggregate_... (window_aggregate)
              │    window: tumble by ts, size 1m
              │    keys: auction
              │    aggregates: COUNT(*) AS `count(*)`
              │    -> auction BIGINT NOT NULL, window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL, `count(*)` BIGINT NOT NULL
              │       insert-only, time window_time (1ms), bounded
              └─ filter_... (filter)
                 │    where: price > 1
                 │    -> auction BIGINT NOT NULL, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3)
                 │       insert-only, time ts (1ms), bounded
                 └─ watermark_... (watermark)
                    │    watermark: ts - 5s
                    │    -> auction BIGINT NOT NULL, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3)
                    │       insert-only, time ts (1ms), bounded
                    └─ bid (source)
                            connector: filesystem
                            -> auction BIGINT NOT NULL, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3)
                               insert-only, no time, bounded

        sink_result (sink)
        │    connector: print
        └─ union_... (union)
           │    -> bidder BIGINT, n BIGINT
           │       insert-only, no time, bounded
           ├─ project_... (project)
           │  │    columns: bidder, `count(*)` AS n
           │  │    -> bidder BIGINT, n BIGINT NOT NULL
           │  │       insert-only, no time, bounded
           │  └─ aggregate_... (aggregate)
           │     │    keys: bidder
           │     │    aggregates: COUNT(*) AS `count(*)`
           │     │    -> bidder BIGINT, `count(*)` BIGINT NOT NULL
           │     │       insert-only, no time, bounded
           │     └─ watermark_... (watermark), shown above
           └─ project_... (project)
              │    columns: price AS bidder, price AS n
              │    -> bidder BIGINT, n BIGINT
              │       insert-only, no time, bounded
              └─ watermark_... (watermark), shown above
    "#]].assert_eq(&shown);
}

/// The queries of Nexmark that need no join and no top-n, as their texts stand in Flink's repository of them.
#[test]
fn nexmark() {
    let tables = "
        CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, `dateTime` TIMESTAMP(3), extra VARCHAR,
            WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND) WITH ('connector' = 'datagen', 'number-of-rows' = '100');";
    let check =
        |query: &str, expected: Expect| expected.assert_eq(&compact(&planned(&format!("{tables}{query}")).graph));
    check(
        "CREATE TABLE nexmark_q1 (auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), `dateTime` TIMESTAMP(3), extra VARCHAR) WITH ('connector' = 'blackhole');
         INSERT INTO nexmark_q1 SELECT auction, bidder, 0.908 * price as price, `dateTime`, extra FROM bid;",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            project: columns: auction, bidder, 0.908 * price AS price, dateTime, extra <- watermark
            sink_nexmark_q1: connector: blackhole <- project
        "#]],
    );
    check(
        "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;",
        expect![[r#"
        bid: connector: datagen
        watermark: watermark: dateTime - 4s <- bid
        filter: where: MOD(auction, 123) = 0 <- watermark
        project: columns: auction, price <- filter
        sink_result: connector: print <- project
    "#]],
    );
    check(
        "SELECT AuctionBids.auction, AuctionBids.num FROM (
           SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
           FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
           GROUP BY auction, window_start, window_end
         ) AS AuctionBids",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            window_aggregate: window: hop by dateTime, slide 2s, size 10s; keys: auction; aggregates: COUNT(*) AS `count(*)` <- watermark
            project: columns: auction, `count(*)` AS num <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT B.bidder, count(*) as bid_count, SESSION_START(B.`dateTime`, INTERVAL '10' SECOND) as starttime, SESSION_END(B.`dateTime`, INTERVAL '10' SECOND) as endtime
         FROM bid B GROUP BY B.bidder, SESSION(B.`dateTime`, INTERVAL '10' SECOND);",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            window_aggregate: window: session by dateTime, gap 10s; keys: bidder; aggregates: COUNT(*) AS `count(*)` <- watermark
            project: columns: bidder, `count(*)` AS bid_count, window_start AS starttime, window_end AS endtime <- window_aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT auction, bidder, 0.908 * price as price,
           CASE WHEN HOUR(`dateTime`) >= 8 AND HOUR(`dateTime`) <= 18 THEN 'dayTime' WHEN HOUR(`dateTime`) <= 6 OR HOUR(`dateTime`) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS bidTimeType,
           `dateTime`, extra FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            filter: where: 0.908 * price > 1000000 AND 0.908 * price < 50000000 <- watermark
            project: columns: auction, bidder, 0.908 * price AS price, CASE WHEN HOUR(dateTime) >= 8 AND HOUR(dateTime) <= 18 THEN 'dayTime' WHEN HOUR(dateTime) <= 6 OR HOUR(dateTime) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS bidTimeType, dateTime, extra <- filter
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT DATE_FORMAT(`dateTime`, 'yyyy-MM-dd') as `day`, count(*) AS total_bids, count(*) filter (where price < 10000) AS rank1_bids,
           count(distinct bidder) AS total_bidders, count(distinct bidder) filter (where price < 10000) AS rank1_bidders
         FROM bid GROUP BY DATE_FORMAT(`dateTime`, 'yyyy-MM-dd');",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            aggregate: keys: DATE_FORMAT(dateTime, 'yyyy-MM-dd'); aggregates: COUNT(*) AS `count(*)`, COUNT(*) FILTER (WHERE price < 10000) AS `count(*)0`, COUNT(DISTINCT bidder) AS `count(distinct bidder)`, COUNT(DISTINCT bidder) FILTER (WHERE price < 10000) AS `count(distinct bidder)0` <- watermark
            project: columns: `DATE_FORMAT(dateTime, 'yyyy-MM-dd')` AS day, `count(*)` AS total_bids, `count(*)0` AS rank1_bids, `count(distinct bidder)` AS total_bidders, `count(distinct bidder)0` AS rank1_bidders <- aggregate
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) as dir1, SPLIT_INDEX(url, '/', 4) as dir2 FROM bid;",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            project: columns: auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) AS dir1, SPLIT_INDEX(url, '/', 4) AS dir2 <- watermark
            sink_result: connector: print <- project
        "#]],
    );
    check(
        "SELECT auction, bidder, price, channel, CASE WHEN lower(channel) = 'apple' THEN '0' ELSE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id
         FROM bid where REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) is not null or lower(channel) in ('apple', 'google', 'facebook', 'baidu');",
        expect![[r#"
            bid: connector: datagen
            watermark: watermark: dateTime - 4s <- bid
            filter: where: REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu') <- watermark
            project: columns: auction, bidder, price, channel, CASE WHEN lower(channel) = 'apple' THEN '0' ELSE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id <- filter
            sink_result: connector: print <- project
        "#]],
    );
}

#[test]
fn tables_of_the_catalogue_are_known_unless_the_script_has_its_own() {
    let catalog =
        vec!["CREATE TABLE nums (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3')".to_string()];
    let options = Options { catalog, ..Options::default() };
    let sources = |text: &str| {
        let script = plan(text, &options).unwrap();
        script.graph.to_json_redacted()
    };
    let known = sources("SELECT n FROM nums");
    assert!(known.contains("\"datagen\"") && known.contains("nums"), "{known}");
    let own = "CREATE TABLE nums (s STRING) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json'); SELECT s FROM nums";
    assert!(!sources(own).contains("datagen"));
    // What nobody uses is not in the graph.
    let other =
        "CREATE TABLE t (s STRING) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json'); SELECT s FROM t";
    assert!(!sources(other).contains("nums"));
    let broken = Options {
        catalog: vec!["CREATE TABLE nums (n BIGNT) WITH ('connector' = 'datagen')".into()],
        ..Options::default()
    };
    let problems = plan("SELECT n FROM nums", &broken).unwrap_err();
    assert!(
        problems.iter().all(|problem| problem.place == graph::Place::Nowhere || problem.code == "unknown_table"),
        "{problems:?}"
    );
    // It is the matter of those who read it; and what is no table has no name to read it by.
    let beside =
        Options { catalog: [broken.catalog.clone(), vec!["CREATE TABLE".into()]].concat(), ..Options::default() };
    let own =
        "CREATE TABLE t (s STRING) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json'); SELECT s FROM ";
    plan(&format!("{own}t"), &beside).unwrap();
    let mistyped = plan(&format!("{own}nms"), &beside).unwrap_err();
    assert_eq!(mistyped[0].hint.as_deref(), Some("did you mean nums?"), "{mistyped:?}");
}

#[test]
fn a_topic_is_read_by_the_key_that_it_is_written_with() {
    let key_fields = |more: &str| {
        let script = planned(&format!(
            "CREATE TABLE t (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'kafka', 'topic' = 't',
                'properties.bootstrap.servers' = 'h:1', 'format' = 'json' {more});
             SELECT n, k FROM t"
        ));
        let graph = serde_json::to_value(&script.graph).unwrap();
        graph["nodes"][0]["connector"]["key.fields"].as_str().unwrap_or_default().to_string()
    };
    assert_eq!(key_fields(", 'value.fields-include' = 'EXCEPT_KEY'"), "k");
    assert_eq!(key_fields(", 'value.fields-include' = 'EXCEPT_KEY', 'key.fields' = 'n'"), "n");
    assert_eq!(key_fields(""), "", "it stands in the value, too");
}
