-- The sketch promises a relative error of 1 %; the values are 1 to 1000, so the exact answer is known.
-- Golden: by hand, from the definition.

CREATE TABLE clicks (
  k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '30' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'clicks.jsonl', 'format' = 'json');

CREATE TABLE result (window_start TIMESTAMP(3), median_is_near BOOLEAN, p99_is_near BOOLEAN, n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_start,
  p50 BETWEEN 0.989 * 500 AND 1.011 * 501, p99 BETWEEN 0.989 * 990 AND 1.011 * 991, n
FROM (
  SELECT window_start, APPROX_PERCENTILE(v, 0.5) AS p50, APPROX_PERCENTILE(v, 0.99) AS p99, COUNT(*) AS n
  FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end
);
