--! key: auction, channel
-- SELECT DISTINCT, with NULLs: equal to each other here.
-- Golden: DuckDB, SELECT DISTINCT auction, channel FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, channel STRING) WITH ('connector' = 'print');

INSERT INTO result SELECT DISTINCT auction, channel FROM bids;
