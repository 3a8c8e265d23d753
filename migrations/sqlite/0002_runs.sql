-- Runs of jobs and the moves that they made. At most one run of a job is active: the partial index holds that, whoever asks.
-- A run goes with its job; its version cannot go before it.
CREATE TABLE run (
    run_id      blob PRIMARY KEY,
    job_id      blob NOT NULL REFERENCES job ON DELETE CASCADE,
    version     integer NOT NULL,
    state       text NOT NULL,
    active      integer NOT NULL CHECK (active IN (0, 1)),
    generation  integer NOT NULL CHECK (generation >= 0),
    request     text NOT NULL,              -- JSON
    facts       text NOT NULL,              -- JSON
    failure     text,                       -- JSON; NULL if it did not fail
    revision    integer NOT NULL CHECK (revision >= 1),
    created_at  integer NOT NULL,
    started_at  integer,                -- NULL until it started
    ended_at    integer,                -- NULL until it ended
    FOREIGN KEY (job_id, version) REFERENCES job_version (job_id, version),
    CHECK (state IN ('pending', 'starting', 'running', 'restarting', 'stopping', 'finished', 'stopped', 'cancelled', 'failed')),
    CHECK (active = (state IN ('pending', 'starting', 'running', 'restarting', 'stopping')))
) STRICT;
CREATE UNIQUE INDEX run_active ON run (job_id) WHERE active;
CREATE INDEX run_active_by_id ON run (run_id) WHERE active;
CREATE INDEX run_by_job ON run (job_id, run_id);
CREATE INDEX run_by_state ON run (state, run_id);

CREATE TABLE run_event (
    run_id      blob NOT NULL REFERENCES run ON DELETE CASCADE,
    sequence    integer NOT NULL CHECK (sequence >= 1),
    at          integer NOT NULL,
    from_state  text CHECK ((from_state IS NULL) = (sequence = 1)),   -- NULL for the first: there was no run before
    to_state    text NOT NULL,
    cause       text,                       -- NULL if nothing but the state is known
    PRIMARY KEY (run_id, sequence),
    CHECK (from_state IN ('pending', 'starting', 'running', 'restarting', 'stopping', 'finished', 'stopped', 'cancelled', 'failed')),
    CHECK (to_state IN ('pending', 'starting', 'running', 'restarting', 'stopping', 'finished', 'stopped', 'cancelled', 'failed'))
) STRICT, WITHOUT ROWID;
