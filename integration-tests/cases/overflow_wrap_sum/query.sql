-- With overflow.wrap a sum of integers wraps, as in Flink.
-- Golden: by hand.

SET 'overflow.wrap' = 'true';

CREATE TABLE numbers (k STRING, i INT, b BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'numbers.jsonl', 'format' = 'json');

CREATE TABLE result (k STRING, i INT, b BIGINT, mean BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT k, SUM(i), SUM(b), AVG(b) FROM numbers GROUP BY k;
