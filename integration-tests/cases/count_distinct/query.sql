-- Distinct values per window, several columns of several types; NULL is not counted. Hopping windows share panes.
-- Golden: DuckDB, SELECT s AS window_start, s + INTERVAL 15 SECOND AS window_end, count(DISTINCT bidder) bidders,
--   count(DISTINCT channel) channels, count(*) n FROM (SELECT *, unnest(generate_series(time_bucket(INTERVAL 5 SECOND,
--   ts), ts - INTERVAL 15 SECOND + INTERVAL 1 MILLISECOND, INTERVAL '-5 seconds')) AS s FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), bidders BIGINT, channels BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, COUNT(DISTINCT bidder), COUNT(DISTINCT channel), COUNT(*)
FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '15' SECOND)) GROUP BY window_start, window_end;
