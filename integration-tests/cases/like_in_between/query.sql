-- LIKE with both wildcards and an escape, NOT LIKE, IN, NOT IN, BETWEEN.
-- Golden: DuckDB, SELECT path, size FROM read_json('files.jsonl', columns={path:'VARCHAR', size:'BIGINT'}) WHERE
--   (path LIKE 'a%.txt' OR path LIKE '_x' OR path LIKE '%!_%' ESCAPE '!') AND path NOT LIKE '%tmp%' AND size IN (1, 2,
--   3, 5, 8) AND size NOT IN (5) AND size BETWEEN 2 AND 8

CREATE TABLE files (path STRING, size BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'files.jsonl', 'format' = 'json');

CREATE TABLE result (path STRING, size BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT path, size FROM files
WHERE (path LIKE 'a%.txt' OR path LIKE '_x' OR path LIKE '%!_%' ESCAPE '!')
  AND path NOT LIKE '%tmp%' AND size IN (1, 2, 3, 5, 8) AND size NOT IN (5) AND size BETWEEN 2 AND 8;
