-- One control plane at a time, by the clock of this database. Safety does not rest on the lease: who writes compares the term.
CREATE TABLE leadership (
    only_row    bigint PRIMARY KEY CHECK (only_row = 1),
    term        bigint NOT NULL,
    holder      text NOT NULL,              -- empty: nobody yet
    expires_at  timestamptz NOT NULL
);
INSERT INTO leadership VALUES (1, 0, '', now());

-- A connection lost at COMMIT leaves a question: each transaction leaves its nonce here, so that the answer can be read.
-- Rows are removed after an hour: who asks, asks within seconds.
CREATE TABLE recent_write (
    nonce       uuid PRIMARY KEY,
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX recent_write_by_time ON recent_write (written_at);
