-- FIRST_VALUE and LAST_VALUE go by the time attribute, not by arrival; ties by the value.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 10 SECOND, ts) window_start, k, first(v ORDER BY ts, v) first_v,
--   last(v ORDER BY ts, v) last_v FROM read_json('clicks.jsonl', columns={k:'VARCHAR',v:'BIGINT',ts:'TIMESTAMP'})
--   GROUP BY ALL

CREATE TABLE clicks (
  k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '30' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'clicks.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), k STRING, first_v BIGINT, last_v BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, k, FIRST_VALUE(v), LAST_VALUE(v)
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, k;
