-- Epochs that were decided: the rows from which a job recovers, and the one commit point of what its sinks publish.
-- A number is used once: a generation takes numbers above reserved_epoch only, and gaps are normal. Retired rows stay as the history.
ALTER TABLE job ADD COLUMN reserved_epoch bigint NOT NULL DEFAULT 0 CHECK (reserved_epoch >= 0);  -- all up to it may have been used

-- What the run continues: the epoch before its first. NULL: nothing of this job; it began fresh, or from a savepoint.
ALTER TABLE run ADD COLUMN base_epoch bigint CHECK (base_epoch >= 1);

CREATE TABLE epoch (
    job_id           uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    epoch            bigint NOT NULL CHECK (epoch >= 1),
    run_id           uuid NOT NULL REFERENCES run ON DELETE CASCADE,
    generation       bigint NOT NULL CHECK (generation >= 0),
    previous         bigint CHECK (previous < epoch),   -- NULL: the first of its lineage
    nonce            uuid NOT NULL,
    state            text NOT NULL CHECK (state IN ('decided', 'committed', 'retired')),
    manifest         text NOT NULL,
    manifest_sha256  text NOT NULL CHECK (length(manifest_sha256) = 64),
    bytes            bigint NOT NULL CHECK (bytes >= 0),
    total_bytes      bigint NOT NULL CHECK (total_bytes >= 0),
    duration_ms      bigint NOT NULL CHECK (duration_ms >= 0),
    last             boolean NOT NULL,
    facts            text NOT NULL,         -- JSON
    proofs           text,                  -- JSON; NULL until committed
    decided_at       timestamptz NOT NULL,
    committed_at     timestamptz,           -- NULL until committed; an abandoned one is retired without
    retired_at       timestamptz,           -- NULL until retired
    PRIMARY KEY (job_id, epoch),
    CHECK ((proofs IS NULL) = (committed_at IS NULL)),
    CHECK (state <> 'decided' OR committed_at IS NULL),
    CHECK (state <> 'committed' OR committed_at IS NOT NULL),
    CHECK ((retired_at IS NOT NULL) = (state = 'retired'))
);
CREATE INDEX epoch_by_run ON epoch (run_id, epoch);
