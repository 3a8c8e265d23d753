--! key: auction
-- A GROUP BY without a window is an updating result; what remains of it is the bounded answer.
-- Golden: DuckDB, SELECT auction, count(*) n, sum(price)::BIGINT total, (sum(price) // count(price))::BIGINT mean,
--   min(price) smallest, max(price) largest, count(DISTINCT bidder) bidders FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY auction

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (auction BIGINT, n BIGINT, total BIGINT, mean BIGINT, smallest BIGINT, largest BIGINT, bidders BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT auction, COUNT(*), SUM(price), AVG(price), MIN(price), MAX(price), COUNT(DISTINCT bidder)
FROM bids GROUP BY auction;
