-- Epochs that were decided: the rows from which a job recovers, and the one commit point of what its sinks publish.
-- A number is used once: a generation takes numbers above reserved_epoch only, and gaps are normal. Retired rows stay as the history.
ALTER TABLE job ADD COLUMN reserved_epoch integer NOT NULL DEFAULT 0 CHECK (reserved_epoch >= 0);  -- all up to it may have been used

-- What the run continues: the epoch before its first. NULL: nothing of this job; it began fresh, or from a savepoint.
ALTER TABLE run ADD COLUMN base_epoch integer CHECK (base_epoch >= 1);

CREATE TABLE epoch (
    job_id           blob NOT NULL REFERENCES job ON DELETE CASCADE,
    epoch            integer NOT NULL CHECK (epoch >= 1),
    run_id           blob NOT NULL REFERENCES run ON DELETE CASCADE,
    generation       integer NOT NULL CHECK (generation >= 0),
    previous         integer CHECK (previous < epoch),   -- NULL: the first of its lineage
    nonce            blob NOT NULL,
    state            text NOT NULL CHECK (state IN ('decided', 'committed', 'retired')),
    manifest         text NOT NULL,
    manifest_sha256  text NOT NULL CHECK (length(manifest_sha256) = 64),
    bytes            integer NOT NULL CHECK (bytes >= 0),
    total_bytes      integer NOT NULL CHECK (total_bytes >= 0),
    duration_ms      integer NOT NULL CHECK (duration_ms >= 0),
    last             integer NOT NULL CHECK (last IN (0, 1)),
    facts            text NOT NULL,         -- JSON
    proofs           text,                  -- JSON; NULL until committed
    decided_at       integer NOT NULL,
    committed_at     integer,               -- NULL until committed; an abandoned one is retired without
    retired_at       integer,               -- NULL until retired
    PRIMARY KEY (job_id, epoch),
    CHECK ((proofs IS NULL) = (committed_at IS NULL)),
    CHECK (state <> 'decided' OR committed_at IS NULL),
    CHECK (state <> 'committed' OR committed_at IS NOT NULL),
    CHECK ((retired_at IS NOT NULL) = (state = 'retired'))
) STRICT;
CREATE INDEX epoch_by_run ON epoch (run_id, epoch);
