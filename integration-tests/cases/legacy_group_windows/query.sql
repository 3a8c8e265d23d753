-- The older form, a window function in GROUP BY, with its start and end.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 10 SECOND, ts) window_start, time_bucket(INTERVAL 10 SECOND, ts) +
--   INTERVAL 10 SECOND window_end, auction, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), auction BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT TUMBLE_START(ts, INTERVAL '10' SECOND), TUMBLE_END(ts, INTERVAL '10' SECOND), auction, COUNT(*)
FROM bids GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), auction;
