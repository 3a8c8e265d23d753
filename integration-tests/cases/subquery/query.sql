-- Subqueries in FROM, three deep, with filters that can be merged.
-- Golden: DuckDB, SELECT auction, price * 2 AS twice FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE bidder <> 100
--   AND price * 2 > 100 AND auction IN (1, 3)

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, twice BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT a, p FROM (
  SELECT a, p FROM (SELECT auction AS a, price * 2 AS p, bidder FROM bids WHERE bidder <> 100) AS inner_rows WHERE p > 100
) AS outer_rows WHERE a IN (1, 3);
