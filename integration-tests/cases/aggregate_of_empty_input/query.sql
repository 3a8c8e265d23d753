-- A global aggregate over an empty input gives one row, bounded or not.
-- Golden: by hand.

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (n BIGINT, total BIGINT, largest STRING) WITH ('connector' = 'print');

INSERT INTO result SELECT COUNT(*), SUM(price), MAX(channel) FROM bids WHERE price > 100000;
