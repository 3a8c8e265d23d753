-- Savepoints outlive their job, so that an upgraded one, or another, can start from them: no reference to job or run.
-- A client names its savepoint, once per job: asking again finds the first.
CREATE TABLE savepoint (
    savepoint_id    blob PRIMARY KEY,
    job_id          blob NOT NULL,
    job_name        text NOT NULL,          -- as it was: the job may be gone
    run_id          blob NOT NULL,
    name            text NOT NULL CHECK (length(name) <= 128),
    state           text NOT NULL CHECK (state IN ('running', 'completed', 'failed')),
    epoch           integer CHECK (epoch >= 1),         -- NULL until it is known
    location        text NOT NULL,
    format_version  integer NOT NULL CHECK (format_version >= 1),
    bytes           integer CHECK (bytes >= 0),         -- NULL until completed
    facts           text NOT NULL,          -- JSON
    failure         text,                   -- JSON; NULL unless it failed
    created_at      integer NOT NULL,
    ended_at        integer,                -- NULL while it runs
    UNIQUE (job_id, name),
    CHECK ((ended_at IS NULL) = (state = 'running')),
    CHECK ((failure IS NOT NULL) = (state = 'failed')),
    CHECK (state <> 'completed' OR (epoch IS NOT NULL AND bytes IS NOT NULL))
) STRICT;
CREATE INDEX savepoint_by_job ON savepoint (job_id, savepoint_id);

-- A run that restores from a savepoint: while this row is there, the savepoint cannot be deleted.
CREATE TABLE savepoint_use (
    savepoint_id  blob NOT NULL REFERENCES savepoint,
    run_id        blob NOT NULL REFERENCES run ON DELETE CASCADE,
    PRIMARY KEY (savepoint_id, run_id)
) STRICT;
CREATE INDEX savepoint_use_by_run ON savepoint_use (run_id);
