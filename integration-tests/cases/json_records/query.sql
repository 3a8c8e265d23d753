-- What a JSON record may look like: spaces, escapes, any order, duplicate keys (the last wins), missing and unknown
-- fields, integers in disguise.
-- Golden: by hand, from the rules for JSON records.

CREATE TABLE records (id BIGINT, name STRING, ok BOOLEAN, x DOUBLE)
WITH ('connector' = 'filesystem', 'path' = 'records.jsonl', 'format' = 'json');

CREATE TABLE result (id BIGINT, name STRING, ok BOOLEAN, x DOUBLE) WITH ('connector' = 'print');

INSERT INTO result SELECT id, name, ok, x FROM records;
