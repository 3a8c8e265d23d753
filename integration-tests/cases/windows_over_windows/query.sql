-- The largest count per 20 s of counts per 5 s: window_time is the time attribute of the inner result.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 20 SECOND, s) window_start, count(*) auctions, max(n) most,
--   sum(n)::BIGINT all_bids FROM (SELECT time_bucket(INTERVAL 5 SECOND, ts) s, auction, count(*) n FROM
--   read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY ALL) GROUP BY
--   ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE VIEW counts AS
SELECT window_time AS rowtime, auction, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))
GROUP BY window_start, window_end, window_time, auction;

CREATE TABLE result (window_start TIMESTAMP(3), auctions BIGINT, most BIGINT, all_bids BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, COUNT(*), MAX(n), SUM(n)
FROM TABLE(TUMBLE(TABLE counts, DESCRIPTOR(rowtime), INTERVAL '20' SECOND)) GROUP BY window_start, window_end;
