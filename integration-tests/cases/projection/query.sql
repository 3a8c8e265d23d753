-- Columns in another order, arithmetic, a function and a literal.
-- Golden: DuckDB, SELECT bidder, price * 2 + 1 AS doubled, upper(channel) AS channel, 'bid' AS kind, price % 7 AS
--   remainder FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (bidder BIGINT, doubled BIGINT, channel STRING, kind STRING, remainder BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT bidder, price * 2 + 1, UPPER(channel), 'bid', MOD(price, 7) FROM bids;
