-- Connections may lead to a PostgreSQL database.
ALTER TABLE connection DROP CONSTRAINT connection_kind_check;
ALTER TABLE connection ADD CONSTRAINT connection_kind_check
    CHECK (kind IN ('kafka', 'postgres', 's3', 'schema_registry'));
