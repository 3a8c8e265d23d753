-- IS DISTINCT FROM binds as a comparison does, more tightly than NOT, AND and OR.
-- Golden: by hand.

CREATE TABLE source (id BIGINT, b BOOLEAN, x INT)
WITH ('connector' = 'filesystem', 'path' = 'rows.jsonl', 'format' = 'json');

CREATE TABLE result (id BIGINT, both BOOLEAN, either BOOLEAN, negated BOOLEAN) WITH ('connector' = 'print');

INSERT INTO result
SELECT id, b IS DISTINCT FROM TRUE AND x > 3, b IS NOT DISTINCT FROM TRUE OR x > 3, NOT b IS DISTINCT FROM TRUE AND x > 3
FROM source
WHERE b IS DISTINCT FROM FALSE OR x > 3;
