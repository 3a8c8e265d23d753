-- Casts between numbers, texts and times; a DOUBLE is truncated toward zero on the way to an integer, as in Flink.
-- Golden: by hand, from the documented rules.

CREATE TABLE mixed (n BIGINT, t STRING, d DOUBLE, s STRING, b BOOLEAN)
WITH ('connector' = 'filesystem', 'path' = 'mixed.jsonl', 'format' = 'json');

CREATE TABLE result (as_text STRING, from_text BIGINT, whole BIGINT, as_double DOUBLE, day_of DATE, stamp TIMESTAMP(3), cents DECIMAL(8, 2), flag STRING) WITH ('connector' = 'print');

INSERT INTO result SELECT CAST(n AS STRING), CAST(t AS BIGINT), CAST(d AS BIGINT), CAST(n AS DOUBLE),
  CAST(s AS DATE), CAST(s AS TIMESTAMP(3)), CAST(d AS DECIMAL(8, 2)), CAST(b AS STRING)
FROM mixed;
