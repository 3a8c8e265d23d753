-- A common table expression that is used twice.
-- Golden: DuckDB, SELECT CASE auction % 2 WHEN 0 THEN 'even' ELSE 'odd' END kind, auction, price FROM
--   read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE price >= 200

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (kind STRING, auction BIGINT, price BIGINT) WITH ('connector' = 'print');

INSERT INTO result
WITH dear AS (SELECT auction, price FROM bids WHERE price >= 200)
SELECT 'even', auction, price FROM dear WHERE MOD(auction, 2) = 0
UNION ALL
SELECT 'odd', auction, price FROM dear WHERE MOD(auction, 2) = 1;
