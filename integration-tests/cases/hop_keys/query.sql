-- Overlapping windows per key; five windows hold each row.
-- Golden: DuckDB, SELECT s AS window_start, s + INTERVAL 10 SECOND AS window_end, auction, count(*) n, max(price)
--   largest FROM (SELECT *, unnest(generate_series(time_bucket(INTERVAL 2 SECOND, ts), ts - INTERVAL 10 SECOND +
--   INTERVAL 1 MILLISECOND, INTERVAL '-2 seconds')) AS s FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), auction BIGINT, n BIGINT, largest BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, auction, COUNT(*), MAX(price)
FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
GROUP BY window_start, window_end, auction;
