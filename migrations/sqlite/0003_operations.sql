-- Work that outlives the request that asked for it. The subject is named, not referenced: an operation tells of what is gone, too.
CREATE TABLE operation (
    operation_id  blob PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('stop_now', 'stop_drain')),
    subject       text NOT NULL,
    state         text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    progress      text NOT NULL,            -- JSON
    result        text,                     -- JSON; NULL unless it succeeded with one
    failure       text,                     -- JSON; NULL unless it failed
    created_at    integer NOT NULL,
    ended_at      integer,              -- NULL while it runs
    CHECK ((ended_at IS NULL) = (state = 'running'))
) STRICT;
CREATE INDEX operation_running ON operation (operation_id) WHERE ended_at IS NULL;
CREATE INDEX operation_by_end ON operation (ended_at) WHERE ended_at IS NOT NULL;
