-- Columns computed from others; one of them is the time attribute, made from a number of milliseconds.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 1 SECOND, make_timestamp(ms * 1000)) window_start, count(*) n,
--   sum(cents // 100)::BIGINT euros FROM read_json('trades.jsonl', columns={ms:'BIGINT',cents:'BIGINT'}) GROUP BY ALL

CREATE TABLE trades (
  ms BIGINT, cents BIGINT,
  euros AS cents / 100,
  at AS CAST(TO_TIMESTAMP_LTZ(ms, 3) AS TIMESTAMP(3)),
  WATERMARK FOR at AS at - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'trades.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), n BIGINT, euros BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, COUNT(*), SUM(euros)
FROM TABLE(TUMBLE(TABLE trades, DESCRIPTOR(at), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
