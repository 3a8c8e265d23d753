-- Parts and formats of timestamps, also before 1970.
-- Golden: DuckDB, SELECT year(ts) y, month(ts) mo, day(ts) d, hour(ts) h, minute(ts) mi, second(ts) s, strftime(ts,
--   '%Y/%m/%d %H-%M') AS formatted, ts + INTERVAL 1 DAY - INTERVAL 30 MINUTE AS shifted FROM read_json('times.jsonl',
--   columns={ts:'TIMESTAMP'})

CREATE TABLE times (ts TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'times.jsonl', 'format' = 'json');

CREATE TABLE result (y BIGINT, mo BIGINT, d BIGINT, h BIGINT, mi BIGINT, s BIGINT, formatted STRING, shifted TIMESTAMP(3)) WITH ('connector' = 'print');

INSERT INTO result SELECT EXTRACT(YEAR FROM ts), MONTH(ts), DAYOFMONTH(ts), HOUR(ts), MINUTE(ts), SECOND(ts),
  DATE_FORMAT(ts, 'yyyy/MM/dd HH-mm'), ts + INTERVAL '1' DAY - INTERVAL '30' MINUTE
FROM times;
