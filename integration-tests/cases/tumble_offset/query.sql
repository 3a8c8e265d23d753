-- Windows that begin off the round time; the offset may be negative.
-- Golden: DuckDB, SELECT 'later' which, time_bucket(INTERVAL 10 SECOND, ts, INTERVAL 3 SECOND) window_start,
--   count(*) n, sum(price)::BIGINT total FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL UNION ALL
--   SELECT 'earlier', time_bucket(INTERVAL 10 SECOND, ts, INTERVAL 6 SECOND), count(*), sum(price)::BIGINT FROM
--   read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (which STRING, window_start TIMESTAMP(3), n BIGINT, total BIGINT) WITH ('connector' = 'print');

INSERT INTO result
SELECT 'later', window_start, COUNT(*), SUM(price)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '3' SECOND)) GROUP BY window_start, window_end
UNION ALL
SELECT 'earlier', window_start, COUNT(*), SUM(price)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '-4' SECOND)) GROUP BY window_start, window_end;
