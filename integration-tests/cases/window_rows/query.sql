-- A window function without an aggregate: every row with its windows, and window_time = window_end - 1 ms.
-- Golden: by hand: the starts are the multiples of 5 minutes in (time - 10 minutes, time].

CREATE TABLE bids (
  bidtime TIMESTAMP(3), price DECIMAL(10, 2), item STRING,
  WATERMARK FOR bidtime AS bidtime - INTERVAL '10' MINUTE
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (item STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP(3)) WITH ('connector' = 'print');

INSERT INTO result SELECT item, window_start, window_end, window_time
FROM TABLE(HOP(TABLE bids, DESCRIPTOR(bidtime), INTERVAL '5' MINUTES, INTERVAL '10' MINUTES));
