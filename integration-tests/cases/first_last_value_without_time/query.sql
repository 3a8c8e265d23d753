--! bounded-only: without a time, first and last values are refused in a stream
-- Without a time attribute all rows tie, and ties go by the value; refused in a stream.
-- Golden: the smallest and the largest value of each key, by hand.

CREATE TABLE readings (k STRING, x BIGINT) WITH ('connector' = 'filesystem', 'path' = 'readings.jsonl', 'format' = 'json');

CREATE TABLE result (k STRING, first_x BIGINT, last_x BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT k, FIRST_VALUE(x), LAST_VALUE(x) FROM readings GROUP BY k;
