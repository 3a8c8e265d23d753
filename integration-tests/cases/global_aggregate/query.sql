-- An aggregate without keys has one row.
-- Golden: DuckDB, SELECT count(*) n, sum(price)::BIGINT total, avg(price) mean, max(channel) largest FROM
--   read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (n BIGINT, total BIGINT, mean DOUBLE, largest STRING) WITH ('connector' = 'print');

INSERT INTO result SELECT COUNT(*), SUM(price), AVG(CAST(price AS DOUBLE)), MAX(channel) FROM bids;
