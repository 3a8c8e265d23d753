-- Growing windows per key: each step repeats what the window holds so far.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 20 SECOND, ts) AS window_start, e AS window_end, channel,
--   sum(price)::BIGINT total FROM (SELECT *, unnest(generate_series(time_bucket(INTERVAL 5 SECOND, ts) + INTERVAL 5
--   SECOND, time_bucket(INTERVAL 20 SECOND, ts) + INTERVAL 20 SECOND, INTERVAL 5 SECOND)) AS e FROM
--   read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})) GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), channel STRING, total BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, channel, SUM(price)
FROM TABLE(CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
GROUP BY window_start, window_end, channel;
