-- Departures and mean delay per airport and hour; the worst hours are shown, all of them are written.
-- The same text runs over the file and over the file replayed as a live stream: see demo.sh.

CREATE TABLE flights (
  `date`      TIMESTAMP(6),   -- scheduled departure
  delay       BIGINT,         -- minutes; negative is early
  distance    BIGINT,         -- miles
  origin      STRING,
  destination STRING,
  -- In a stream, rows may come up to ten minutes out of order.
  WATERMARK FOR `date` AS `date` - INTERVAL '10' MINUTE
) WITH ('connector' = 'filesystem', 'path' = 'examples/flights-2001-01.parquet', 'format' = 'parquet');

CREATE TABLE hours (
  hour_start TIMESTAMP(6), origin STRING, departures BIGINT, mean_delay DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '/tmp/highwater/flight-hours', 'format' = 'json');

CREATE TABLE worst_hours (
  hour_start TIMESTAMP(6), origin STRING, departures BIGINT, mean_delay DOUBLE
) WITH ('connector' = 'print');

CREATE VIEW by_hour AS
SELECT window_start AS hour_start, origin, COUNT(*) AS departures, AVG(CAST(delay AS DOUBLE)) AS mean_delay
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(`date`), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin;

EXECUTE STATEMENT SET BEGIN
INSERT INTO hours SELECT hour_start, origin, departures, mean_delay FROM by_hour;
INSERT INTO worst_hours
SELECT hour_start, origin, departures, ROUND(mean_delay, 1) FROM by_hour WHERE departures >= 20 AND mean_delay >= 90;
END;
