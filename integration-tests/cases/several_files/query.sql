--! key: k
-- A folder of files, read in any order; a file may be empty, and names that begin with a dot or underscore are no
-- data.
-- Golden: by hand.

CREATE TABLE parts (k BIGINT, v BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'parts', 'format' = 'json');

CREATE TABLE result (k BIGINT, n BIGINT, total BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT k, COUNT(*), SUM(v) FROM parts GROUP BY k;
