--! key: k
-- AVG of integers is an integer, truncated toward zero; AVG of DOUBLE is not.
-- Golden: by hand: 5 / 3 and -5 / 3 toward zero.

CREATE TABLE numbers (k STRING, n BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'numbers.jsonl', 'format' = 'json');

CREATE TABLE result (k STRING, whole BIGINT, exact DOUBLE) WITH ('connector' = 'print');

INSERT INTO result SELECT k, AVG(n), AVG(CAST(n AS DOUBLE)) FROM numbers GROUP BY k;
