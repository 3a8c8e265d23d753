-- Quotes, separators and line ends in fields, and empty fields as NULL.
-- Golden: by hand.

CREATE TABLE orders (id BIGINT, name STRING, amount DOUBLE, ts TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'orders.csv', 'format' = 'csv');

CREATE TABLE result (id BIGINT, name STRING, amount DOUBLE, ts TIMESTAMP(3)) WITH ('connector' = 'print');

INSERT INTO result SELECT id, name, amount, ts FROM orders;
