-- Sessions over all rows.
-- Golden: DuckDB, SELECT min(ts) window_start, max(ts) + INTERVAL 8 SECOND window_end, count(*) n FROM (SELECT *,
--   sum(CASE WHEN ts - before <= INTERVAL 8 SECOND THEN 0 ELSE 1 END) OVER (ORDER BY ts) AS s FROM (SELECT *, lag(ts)
--   OVER (ORDER BY ts) AS before FROM read_json('clicks.jsonl', columns={k:'VARCHAR',v:'BIGINT',ts:'TIMESTAMP'})))
--   GROUP BY s

CREATE TABLE clicks (
  k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '30' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'clicks.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, COUNT(*)
FROM TABLE(SESSION(TABLE clicks, DESCRIPTOR(ts), INTERVAL '8' SECOND))
GROUP BY window_start, window_end;
