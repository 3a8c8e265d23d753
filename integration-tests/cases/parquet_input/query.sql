-- Several row groups; only some columns are read, and the filter can skip row groups by their statistics.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 1 MINUTE, ts) window_start, channel, count(*) n, sum(weight) total
--   FROM 'bids.parquet' WHERE ts >= '2024-03-01 08:01:30' AND price > 250 GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(6), weight DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.parquet', 'format' = 'parquet');

CREATE VIEW some_bids AS SELECT * FROM bids WHERE ts >= TIMESTAMP '2024-03-01 08:01:30' AND price > 250;

CREATE TABLE result (window_start TIMESTAMP(3), channel STRING, n BIGINT, total DOUBLE) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, channel, COUNT(*), SUM(weight)
FROM TABLE(TUMBLE(TABLE some_bids, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, channel;
