--! bounded-only: an order needs the end of the input
--! ordered: ORDER BY
-- The most frequent keys first; OFFSET skips.
-- Golden: DuckDB, SELECT auction, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY auction ORDER
--   BY n DESC, auction LIMIT 3 OFFSET 1

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction ORDER BY n DESC, auction LIMIT 3 OFFSET 1;
