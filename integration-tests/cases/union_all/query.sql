-- UNION ALL keeps duplicates and takes columns by position.
-- Golden: by hand.

CREATE TABLE l (id BIGINT, v STRING) WITH ('connector' = 'filesystem', 'path' = 'left.jsonl', 'format' = 'json');
CREATE TABLE r (id BIGINT, v STRING) WITH ('connector' = 'filesystem', 'path' = 'right.jsonl', 'format' = 'json');

CREATE TABLE result (id BIGINT, v STRING) WITH ('connector' = 'print');

INSERT INTO result
SELECT id, v FROM l UNION ALL SELECT id, v FROM r UNION ALL SELECT id + 10, 'again' FROM r;
