-- Who may, who did, and what was answered. Of a key only its hash is kept; two keys that live do not share a name.
-- Audit lines are chained by hashes and numbered without a gap; audit_head is the end of the chain, and its lock what puts
-- changes in order. No line is ever changed or removed by the program.
CREATE TABLE api_key (
    key_id      uuid PRIMARY KEY,
    name        text NOT NULL,
    role        text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    hash        bytea NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,                -- NULL: never
    revoked_at  timestamptz                 -- NULL: not
);
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked_at IS NULL;

CREATE TABLE audit_entry (
    sequence    bigint PRIMARY KEY CHECK (sequence >= 1),
    at          timestamptz NOT NULL,
    principal   text NOT NULL,
    request_id  text NOT NULL,
    action      text NOT NULL,
    object      text NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('done', 'denied')),
    detail      text NOT NULL,              -- JSON
    hash        text NOT NULL UNIQUE
);

CREATE TABLE audit_head (
    only_row  bigint PRIMARY KEY CHECK (only_row = 1),
    sequence  bigint NOT NULL,
    hash      text NOT NULL
);
INSERT INTO audit_head VALUES (1, 0, '');

CREATE TABLE answer (
    principal    text NOT NULL,
    request      text NOT NULL,
    key          text NOT NULL,
    body_hash    bytea NOT NULL,
    status       bigint NOT NULL CHECK (status BETWEEN 100 AND 599),
    headers      text NOT NULL,             -- JSON object
    body         bytea NOT NULL,
    answered_at  timestamptz NOT NULL,
    PRIMARY KEY (principal, request, key)
);
CREATE INDEX answer_by_time ON answer (answered_at);
