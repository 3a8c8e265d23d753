-- Sample and population deviation and variance; of one value the sample's is NULL.
-- Golden: DuckDB, SELECT channel, stddev_samp(v) s, stddev_pop(v) p, var_samp(v) vs, var_pop(v) vp, avg(v) mean FROM
--   (SELECT *, price::DOUBLE / 3 AS v FROM read_json('bids.jsonl',
--   columns={auction:'BIGINT',bidder:'BIGINT',price:'BIGINT',channel:'VARCHAR',ts:'TIMESTAMP'})) GROUP BY channel

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');

CREATE TABLE result (channel STRING, s DOUBLE, p DOUBLE, vs DOUBLE, vp DOUBLE, mean DOUBLE) WITH ('connector' = 'print');

INSERT INTO result SELECT channel, STDDEV_SAMP(v), STDDEV_POP(v), VAR_SAMP(v), VAR_POP(v), AVG(v)
FROM (SELECT channel, CAST(price AS DOUBLE) / 3 AS v, window_start, window_end
      FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' HOUR)))
GROUP BY channel, window_start, window_end;
