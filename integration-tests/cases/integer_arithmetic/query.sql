-- Division and remainder of integers truncate toward zero.
-- Golden: by hand.

CREATE TABLE numbers (n BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'numbers.jsonl', 'format' = 'json');

CREATE TABLE result (n BIGINT, half BIGINT, rest BIGINT, negated BIGINT, magnitude BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT n, n / 2, MOD(n, 3), -n, ABS(n) FROM numbers;
