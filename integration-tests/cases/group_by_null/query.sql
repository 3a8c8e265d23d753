--! key: channel
-- NULL is a group of its own; COUNT(*) counts rows, COUNT(x) values; SUM and AVG of no value are NULL.
-- Golden: DuckDB, SELECT channel, count(*) row_count, count(price) value_count, sum(price)::BIGINT total, min(price)
--   smallest, max(price) largest FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY channel

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (channel STRING, row_count BIGINT, value_count BIGINT, total BIGINT, smallest BIGINT, largest BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT channel, COUNT(*), COUNT(price), SUM(price), MIN(price), MAX(price)
FROM bids GROUP BY channel;
