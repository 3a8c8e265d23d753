-- The arguments of a window function by name, in another order.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 15 SECOND, ts) window_start, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, COUNT(*)
FROM TABLE(TUMBLE(SIZE => INTERVAL '15' SECOND, TIMECOL => DESCRIPTOR(ts), DATA => TABLE bids))
GROUP BY window_start, window_end;
