-- FILTER restricts one aggregate; a group whose filter takes nothing stays.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 10 SECOND, ts) window_start, count(*) n, count(*) FILTER (WHERE price
--   < 100) cheap, (sum(price) FILTER (WHERE price < 100))::BIGINT cheap_total, max(price) FILTER (WHERE price > 1000)
--   never, count(DISTINCT bidder) FILTER (WHERE price >= 100) buyers FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), n BIGINT, cheap BIGINT, cheap_total BIGINT, never BIGINT, buyers BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, COUNT(*), COUNT(*) FILTER (WHERE price < 100), SUM(price) FILTER (WHERE price < 100),
  MAX(price) FILTER (WHERE price > 1000), COUNT(DISTINCT bidder) FILTER (WHERE price >= 100)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;
