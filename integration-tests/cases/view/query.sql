-- A view over a view; the window is taken over the view, whose time attribute is its table's.
-- Golden: DuckDB, SELECT time_bucket(INTERVAL 20 SECOND, ts) + INTERVAL 20 SECOND AS window_end, count(*) AS dear
--   FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'}) WHERE price > 150
--   GROUP BY ALL

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE VIEW some_bids AS SELECT auction, price, ts FROM bids;
CREATE VIEW dear_bids AS SELECT * FROM some_bids WHERE price > 150;

CREATE TABLE result (window_end TIMESTAMP(3), dear BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE dear_bids, DESCRIPTOR(ts), INTERVAL '20' SECOND)) GROUP BY window_start, window_end;
