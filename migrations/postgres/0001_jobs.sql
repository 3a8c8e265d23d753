-- Jobs and their versions; what a version claims (views, connections) stands in tables of its own, so that constraints can hold it.
-- A version is never changed. A name of a view belongs to one job at a time: to the version that the job's next run takes.
-- JSON is kept as it was written, as text: nothing is searched inside, and json of this database would refuse U+0000.
CREATE TABLE job (
    job_id       uuid PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    name_folded  text NOT NULL,             -- the name in lower case, folded by the program: both databases search alike
    labels       text NOT NULL,             -- JSON object, for reading; job_label is for searching
    version      bigint NOT NULL CHECK (version >= 1),
    revision     bigint NOT NULL CHECK (revision >= 1),
    state        text NOT NULL CHECK (state IN ('created', 'pending', 'starting', 'running', 'restarting', 'stopping',
                                                'finished', 'stopped', 'cancelled', 'failed')),
    latest_run   uuid,                      -- NULL until there is a run
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);
CREATE INDEX job_by_state ON job (state, job_id);

CREATE TABLE job_label (
    job_id  uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    name    text NOT NULL,
    value   text NOT NULL,
    PRIMARY KEY (job_id, name)
);
-- By the beginning of the value: a whole one may be longer than an index row can be. Who searches says both.
CREATE INDEX job_label_by_value ON job_label (name, substr(value, 1, 64), job_id);

CREATE TABLE job_version (
    job_id       uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    version      bigint NOT NULL CHECK (version >= 1),
    sql          text,                      -- NULL if it was given as a graph
    graph        text NOT NULL,             -- JSON
    hash         text NOT NULL,
    settings     text NOT NULL,             -- JSON
    views        text NOT NULL,             -- JSON
    connections  text NOT NULL,             -- JSON
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (job_id, version)
);

CREATE TABLE job_view (
    name        text PRIMARY KEY,
    job_id      uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    definition  text NOT NULL               -- JSON
);
CREATE INDEX job_view_by_job ON job_view (job_id);
