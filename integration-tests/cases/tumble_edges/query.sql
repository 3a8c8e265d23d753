-- A row at the start of a window belongs to it, a row at its end to the next one; times before 1970 round down.
-- Golden: by hand.

CREATE TABLE times (
  ts TIMESTAMP(3), WATERMARK FOR ts AS ts
) WITH ('connector' = 'filesystem', 'path' = 'times.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start, window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE times, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;
