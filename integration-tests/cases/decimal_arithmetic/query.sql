--! key: item
-- DECIMAL is exact: sums and products do not go through DOUBLE.
-- Golden: by hand.

CREATE TABLE prices (item STRING, price DECIMAL(10, 2))
WITH ('connector' = 'filesystem', 'path' = 'prices.csv', 'format' = 'csv');

CREATE TABLE result (item STRING, tenth DECIMAL(12, 3), total DECIMAL(38, 2), n BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT item, MAX(price * 0.1), SUM(price), COUNT(*) FROM prices GROUP BY item;
