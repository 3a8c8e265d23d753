--! key: auction
-- MIN and MAX of texts, timestamps and doubles; texts by their bytes.
-- Golden: DuckDB, SELECT auction, min(channel) first_text, max(channel) last_text, min(ts) first_ts, max(ts)
--   last_ts, min(price::DOUBLE * -0.5) lowest FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY auction

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, first_text STRING, last_text STRING, first_ts TIMESTAMP(3), last_ts TIMESTAMP(3), lowest DOUBLE) WITH ('connector' = 'print');

INSERT INTO result SELECT auction, MIN(channel), MAX(channel), MIN(ts), MAX(ts), MIN(CAST(price AS DOUBLE) * -0.5)
FROM bids GROUP BY auction;
