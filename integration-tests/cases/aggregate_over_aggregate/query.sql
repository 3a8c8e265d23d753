--! key: n
-- How many auctions have n bids: the inner result is updating, so the outer one must take rows back.
-- Golden: DuckDB, SELECT n, count(*) auctions, max(auction) biggest_auction, sum(n)::BIGINT bid_total FROM (SELECT
--   auction, count(*) n FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) GROUP BY auction)
--   GROUP BY n

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (n BIGINT, auctions BIGINT, biggest_auction BIGINT, bid_total BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT n, COUNT(*), MAX(auction), SUM(n)
FROM (SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction) GROUP BY n;
