-- The flights as records of a topic, in the order in which a live source would deliver them: see demo-kafka.sh.

CREATE TABLE flights (
  `date`      TIMESTAMP(6),
  delay       BIGINT,
  distance    BIGINT,
  origin      STRING,
  destination STRING,
  WATERMARK FOR `date` AS `date` - INTERVAL '10' MINUTE
) WITH (
  'connector' = 'replay', 'path' = 'examples/flights-2001-01.parquet', 'format' = 'parquet', 'replay.disorder' = '10min'
);

CREATE TABLE topic (
  `date` TIMESTAMP(6), delay BIGINT, distance BIGINT, origin STRING, destination STRING
) WITH (
  'connector' = 'kafka', 'topic' = 'flights', 'format' = 'json', 'properties.bootstrap.servers' = 'localhost:9092'
);

INSERT INTO topic SELECT `date`, delay, distance, origin, destination FROM flights;
