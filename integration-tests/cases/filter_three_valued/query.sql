-- A comparison with NULL is neither true nor false: not in the result, and neither is its negation.
-- Golden: DuckDB, SELECT auction, price, channel FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE NOT (price >
--   100) OR channel IS NULL AND price IS NOT NULL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, price BIGINT, channel STRING) WITH ('connector' = 'print');

INSERT INTO result SELECT auction, price, channel FROM bids
WHERE NOT (price > 100) OR channel IS NULL AND price IS NOT NULL;
