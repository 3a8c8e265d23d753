-- Rows of a key whose distance is at most the gap share a session. Out of order, a row may join two sessions.
-- Golden: DuckDB, SELECT k, min(ts) window_start, max(ts) + INTERVAL 5 SECOND window_end, count(*) n, sum(v)::BIGINT
--   total FROM (SELECT *, sum(CASE WHEN ts - before <= INTERVAL 5 SECOND THEN 0 ELSE 1 END) OVER (PARTITION BY k ORDER
--   BY ts) AS s FROM (SELECT *, lag(ts) OVER (PARTITION BY k ORDER BY ts) AS before FROM read_json('clicks.jsonl',
--   columns={k:'VARCHAR',v:'BIGINT',ts:'TIMESTAMP'}))) GROUP BY k, s

CREATE TABLE clicks (
  k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '30' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'clicks.jsonl', 'format' = 'json');

CREATE TABLE result (k STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT, total BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT k, window_start, window_end, COUNT(*), SUM(v)
FROM TABLE(SESSION(TABLE clicks PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' SECOND))
GROUP BY k, window_start, window_end;
