-- Enough rows that batches of 4,096 cross several epochs, over threads, processes and a shuffle of three seconds.
-- Golden: DuckDB, SELECT s AS window_start, s + INTERVAL 2 MINUTE AS window_end, auction % 4 AS lot, count(*) AS n, count(price) AS priced,
--   sum(price) AS total, max(price) AS largest FROM (SELECT *, unnest(generate_series(time_bucket(INTERVAL 1 MINUTE, ts),
--   time_bucket(INTERVAL 1 MINUTE, ts) - INTERVAL 1 MINUTE, INTERVAL '-1 minute')) AS s FROM 'bids.parquet') GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, price BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.parquet', 'format' = 'parquet');

CREATE TABLE result (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), lot BIGINT, n BIGINT, priced BIGINT, total BIGINT, largest BIGINT
) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, MOD(auction, 4) AS lot, COUNT(*), COUNT(price), SUM(price), MAX(price)
FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '2' MINUTE))
GROUP BY window_start, window_end, MOD(auction, 4);
