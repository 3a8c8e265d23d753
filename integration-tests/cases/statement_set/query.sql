-- Two statements write one result; what they share is read once.
-- Golden: DuckDB, SELECT 'price' kind, auction, price value_ FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE price > 300
--   UNION ALL SELECT 'bidder', auction, bidder FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE bidder = 103

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (kind STRING, auction BIGINT, value_ BIGINT) WITH ('connector' = 'print');

EXECUTE STATEMENT SET BEGIN
INSERT INTO result SELECT 'price', auction, price FROM bids WHERE price > 300;
INSERT INTO result SELECT 'bidder', auction, bidder FROM bids WHERE bidder = 103;
END;
