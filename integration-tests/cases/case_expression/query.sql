-- CASE with conditions, CASE with a value, COALESCE, NULLIF; no branch taken is NULL.
-- Golden: DuckDB, SELECT price, CASE WHEN price < 100 THEN 'small' WHEN price < 300 THEN 'medium' END AS size_class,
--   CASE channel WHEN 'apple' THEN 0 WHEN 'google' THEN 1 ELSE -1 END AS channel_id, coalesce(auction, 0) AS known,
--   nullif(auction, 1) AS unless_one FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (price BIGINT, size_class STRING, channel_id INT, known BIGINT, unless_one BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT price,
  CASE WHEN price < 100 THEN 'small' WHEN price < 300 THEN 'medium' END,
  CASE channel WHEN 'apple' THEN 0 WHEN 'google' THEN 1 ELSE -1 END,
  COALESCE(auction, 0),
  NULLIF(auction, 1)
FROM bids;
