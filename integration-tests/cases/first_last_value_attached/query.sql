-- Where rows bring their windows with them, FIRST_VALUE and LAST_VALUE still go by the rows' own time, not by the windows'.
-- Golden: DuckDB, SELECT w window_start, k, first(v ORDER BY ts, v) first_v, last(v ORDER BY ts, v) last_v FROM (
--   SELECT *, unnest([time_bucket(INTERVAL 5 SECOND, ts), time_bucket(INTERVAL 5 SECOND, ts) - INTERVAL 5 SECOND]) w
--   FROM read_json('clicks.jsonl', columns={k:'VARCHAR',v:'BIGINT',ts:'TIMESTAMP'})) WHERE v <> 5 GROUP BY ALL

CREATE TABLE clicks (
  k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '30' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'clicks.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), k STRING, first_v BIGINT, last_v BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, k, FIRST_VALUE(v), LAST_VALUE(v)
FROM (
  SELECT window_start, window_end, ts, k, v
  FROM TABLE(HOP(TABLE clicks, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)) WHERE v <> 5
) GROUP BY window_start, window_end, k;
