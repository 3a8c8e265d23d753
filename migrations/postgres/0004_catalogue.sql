-- Connections and tables that every script may use. Secrets stand apart from their connection, so that no list ever reads them.
-- What uses a connection is recorded, so that none is deleted from under a job or a table.
-- Names are limited in characters, so that no database meets one that its index cannot take.
CREATE TABLE connection (
    connection_id  uuid PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (length(name) <= 128),
    kind           text NOT NULL CHECK (kind IN ('kafka', 's3', 'schema_registry')),
    options        text NOT NULL,           -- JSON object
    secret_names   text NOT NULL,           -- JSON array
    revision       bigint NOT NULL CHECK (revision >= 1),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

CREATE TABLE connection_secret (
    connection_id  uuid NOT NULL REFERENCES connection ON DELETE CASCADE,
    name           text NOT NULL CHECK (length(name) <= 128),
    sealed         bytea NOT NULL,
    PRIMARY KEY (connection_id, name)
);

CREATE TABLE catalogue_table (
    table_id    uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (length(name) <= 128),
    sql         text NOT NULL,
    definition  text NOT NULL,              -- JSON
    connections text NOT NULL,              -- JSON array
    revision    bigint NOT NULL CHECK (revision >= 1),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE table_connection (
    table_id       uuid NOT NULL REFERENCES catalogue_table ON DELETE CASCADE,
    connection_id  uuid NOT NULL REFERENCES connection,
    PRIMARY KEY (table_id, connection_id)
);
CREATE INDEX table_connection_by_connection ON table_connection (connection_id);

-- By the version that the job's next run takes.
CREATE TABLE job_connection (
    job_id         uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    connection_id  uuid NOT NULL REFERENCES connection,
    PRIMARY KEY (job_id, connection_id)
);
CREATE INDEX job_connection_by_connection ON job_connection (connection_id);
