-- HAVING on a windowed aggregate, on one that is not selected, too.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 20 SECOND, ts) window_start, auction, count(*) n FROM
--   read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL HAVING
--   count(*) > 1 AND max(price) > 200

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), auction BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, auction, COUNT(*)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '20' SECOND))
GROUP BY window_start, window_end, auction HAVING COUNT(*) > 1 AND MAX(price) > 200;
