-- Flink's documented example of TUMBLE.
-- Golden: the numbers of Flink's documentation of window aggregation.

CREATE TABLE bids (
  bidtime TIMESTAMP(3), price DECIMAL(10, 2), item STRING,
  WATERMARK FOR bidtime AS bidtime - INTERVAL '10' MINUTE
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), total DECIMAL(38, 2)) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, SUM(price)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES))
GROUP BY window_start, window_end;
