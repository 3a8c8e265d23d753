-- One source is 15 minutes ahead of the other: a window closes when both are past it, so no row is late.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 10 SECOND, ts) window_start, k, count(*) n FROM (SELECT * FROM
--   read_json('old.jsonl', columns={k:'BIGINT',ts:'TIMESTAMP'}) UNION ALL SELECT * FROM read_json('new.jsonl',
--   columns={k:'BIGINT',ts:'TIMESTAMP'})) GROUP BY ALL

CREATE TABLE old (
  k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'old.jsonl', 'format' = 'json');
CREATE TABLE new (
  k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'new.jsonl', 'format' = 'json');

CREATE VIEW both_sources AS SELECT k, ts FROM old UNION ALL SELECT k, ts FROM new;

CREATE TABLE result (window_start TIMESTAMP(3), k BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, k, COUNT(*)
FROM TABLE(TUMBLE(TABLE both_sources, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, k;
