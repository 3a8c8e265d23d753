-- Jobs and their versions; what a version claims (views, connections) stands in tables of its own, so that constraints can hold it.
-- A version is never changed. A name of a view belongs to one job at a time: to the version that the job's next run takes.
-- Times are microseconds since 1970, UTC; identifiers 16 bytes. JSON is kept as it was written: nothing is searched inside.
CREATE TABLE job (
    job_id       blob PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    name_folded  text NOT NULL,             -- the name in lower case, folded by the program: both databases search alike
    labels       text NOT NULL,             -- JSON object, for reading; job_label is for searching
    version      integer NOT NULL CHECK (version >= 1),
    revision     integer NOT NULL CHECK (revision >= 1),
    state        text NOT NULL CHECK (state IN ('created', 'pending', 'starting', 'running', 'restarting', 'stopping',
                                                'finished', 'stopped', 'cancelled', 'failed')),
    latest_run   blob,                      -- NULL until there is a run
    created_at   integer NOT NULL,
    updated_at   integer NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX job_by_state ON job (state, job_id);

-- Searched job by job: this database would not use an index by value.
CREATE TABLE job_label (
    job_id  blob NOT NULL REFERENCES job ON DELETE CASCADE,
    name    text NOT NULL,
    value   text NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_version (
    job_id       blob NOT NULL REFERENCES job ON DELETE CASCADE,
    version      integer NOT NULL CHECK (version >= 1),
    sql          text,                      -- NULL if it was given as a graph
    graph        text NOT NULL,             -- JSON
    hash         text NOT NULL,
    settings     text NOT NULL,             -- JSON
    views        text NOT NULL,             -- JSON
    connections  text NOT NULL,             -- JSON
    created_at   integer NOT NULL,
    PRIMARY KEY (job_id, version)
) STRICT;

CREATE TABLE job_view (
    name        text PRIMARY KEY,
    job_id      blob NOT NULL REFERENCES job ON DELETE CASCADE,
    definition  text NOT NULL               -- JSON
) STRICT;
CREATE INDEX job_view_by_job ON job_view (job_id);
