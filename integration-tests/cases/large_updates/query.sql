-- An aggregate over an updating one, whose groups change throughout: every epoch takes back what the one before said.
-- Golden: DuckDB, SELECT largest % 10 AS digit, count(*) AS auctions, sum(n) AS bids FROM (SELECT auction, max(price) AS largest,
--   count(*) AS n FROM 'bids.parquet' WHERE price < 5000 GROUP BY auction) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, price BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.parquet', 'format' = 'parquet');

CREATE TABLE result (digit BIGINT, auctions BIGINT, bids BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT MOD(largest, 10), COUNT(*), SUM(n)
FROM (SELECT auction, MAX(price) AS largest, COUNT(*) AS n FROM bids WHERE price < 5000 GROUP BY auction)
GROUP BY MOD(largest, 10);
