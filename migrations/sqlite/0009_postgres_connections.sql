-- Connections may lead to a PostgreSQL database. A check is part of its column here: the column is made anew.
ALTER TABLE connection ADD COLUMN new_kind text NOT NULL DEFAULT 'kafka'
    CHECK (new_kind IN ('kafka', 'postgres', 's3', 'schema_registry'));
UPDATE connection SET new_kind = kind;
ALTER TABLE connection DROP COLUMN kind;
ALTER TABLE connection RENAME COLUMN new_kind TO kind;
