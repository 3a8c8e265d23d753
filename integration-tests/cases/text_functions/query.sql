-- SPLIT_INDEX counts from 0; REGEXP_EXTRACT gives a group, or the whole match with group 0.
-- Golden: by hand, from Flink's definition of each function.

CREATE TABLE pages (url STRING, padded STRING)
WITH ('connector' = 'filesystem', 'path' = 'pages.jsonl', 'format' = 'json');

CREATE TABLE result (host STRING, folder STRING, missing STRING, id STRING, whole STRING, len INT, part STRING, joined STRING, trimmed STRING) WITH ('connector' = 'print');

INSERT INTO result SELECT SPLIT_INDEX(url, '/', 2), SPLIT_INDEX(url, '/', 3), SPLIT_INDEX(url, '/', 9),
  REGEXP_EXTRACT(url, 'channel_id=([0-9]+)', 1), REGEXP_EXTRACT(url, 'channel_id=[0-9]+', 0),
  CHAR_LENGTH(url), SUBSTRING(url, 9, 4), CONCAT('<', SPLIT_INDEX(url, '/', 3), '>'), TRIM(BOTH ' ' FROM padded)
FROM pages;
