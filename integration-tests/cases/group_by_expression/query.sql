-- Keys that are expressions, and a group key that is not selected.
-- Golden: DuckDB, SELECT price // 100 price_class, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE price IS NOT
--   NULL GROUP BY price // 100, upper(channel)

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (price_class BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT price / 100, COUNT(*) FROM bids WHERE price IS NOT NULL GROUP BY price / 100, UPPER(channel);
