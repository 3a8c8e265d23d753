-- Fields of nested records; a missing or null record gives NULL fields.
-- Golden: by hand.

CREATE TABLE events (
  event_type INT,
  person ROW<id BIGINT, name STRING, address ROW<city STRING>>,
  bid ROW<auction BIGINT, price BIGINT, dateTime TIMESTAMP(3)>
) WITH ('connector' = 'filesystem', 'path' = 'events.jsonl', 'format' = 'json');

CREATE TABLE result (event_type INT, city STRING, auction BIGINT, price BIGINT) WITH ('connector' = 'print');

INSERT INTO result SELECT event_type, person.address.city, bid.auction, bid.price FROM events WHERE event_type = 0 OR bid.price > 60;
