-- Rows without a time are left out of the windows, when the table says so.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 10 SECOND, ts) window_start, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE ts IS NOT NULL
--   GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json', 'null_event_time' = 'drop');

CREATE TABLE result (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;
