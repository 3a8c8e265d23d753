--! key: auction
-- A row that grows out of a filter on an updating result disappears from it.
-- Golden: DuckDB, SELECT auction, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY auction
--   HAVING count(*) < 4

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT auction, n FROM (SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction) WHERE n < 4;
