--! bounded-only: an order needs the end of the input
--! ordered: ORDER BY
-- Several keys, both directions, NULL smallest as in Flink; the limit comes after the order.
-- Golden: DuckDB, SELECT auction, price, bidder FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) ORDER BY auction NULLS
--   FIRST, price DESC NULLS LAST, bidder LIMIT 17

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, price BIGINT, bidder BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT auction, price, bidder FROM bids ORDER BY auction, price DESC, bidder LIMIT 17;
