-- +goose Up

-- Single facts: epoch, claim code until it is used, signing key of logins.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE users (
    username   TEXT PRIMARY KEY,
    role       TEXT    NOT NULL CHECK (role IN ('admin', 'operator', 'viewer')),
    password   TEXT    NOT NULL, -- argon2id in PHC form
    disabled   INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 1, -- raised to end all logins at once
    created    INTEGER NOT NULL,
    last_login INTEGER
) WITHOUT ROWID;

CREATE TABLE refresh_tokens (
    hash     BLOB PRIMARY KEY, -- SHA-256 of the token
    family   BLOB    NOT NULL, -- one login; a stolen token ends it
    username TEXT    NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    expires  INTEGER NOT NULL,
    rotated  INTEGER           -- when its successor was given out
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON refresh_tokens (username);

CREATE TABLE api_tokens (
    id        TEXT PRIMARY KEY,
    hash      BLOB    NOT NULL UNIQUE,
    name      TEXT    NOT NULL,
    scopes    TEXT    NOT NULL, -- separated by blanks
    created   INTEGER NOT NULL,
    created_by TEXT   NOT NULL,
    expires   INTEGER,
    last_used INTEGER
) WITHOUT ROWID;

CREATE TABLE nodes (
    id            TEXT PRIMARY KEY, -- canonical ID
    name          TEXT NOT NULL UNIQUE,
    role          TEXT NOT NULL CHECK (role IN ('gateway', 'node')),
    identity_key  TEXT NOT NULL UNIQUE,
    wireguard_key TEXT NOT NULL,
    overlay_v4    TEXT NOT NULL UNIQUE, -- never given to another node, revoked or not
    revoked       INTEGER NOT NULL DEFAULT 0,
    board         TEXT NOT NULL DEFAULT '',
    version       TEXT NOT NULL DEFAULT '',
    macs          TEXT NOT NULL DEFAULT '[]',
    boot          INTEGER NOT NULL DEFAULT 0,
    status        TEXT NOT NULL DEFAULT '{}', -- model.NodeStatus as last heard, without interfaces
    admitted_by   TEXT NOT NULL,
    joined        INTEGER NOT NULL,
    last_seen     INTEGER
) WITHOUT ROWID;

CREATE TABLE interfaces (
    node       TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    body       TEXT NOT NULL, -- model.Interface
    present    INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    PRIMARY KEY (node, name)
) WITHOUT ROWID;

CREATE TABLE registrations (
    id        TEXT PRIMARY KEY, -- canonical ID
    request   TEXT    NOT NULL, -- model.JoinRequest without token and signature
    remote    TEXT    NOT NULL,
    state     TEXT    NOT NULL CHECK (state IN ('pending', 'rejected')),
    requested INTEGER NOT NULL,
    last_try  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE join_tokens (
    id      TEXT PRIMARY KEY, -- hex
    note    TEXT    NOT NULL DEFAULT '',
    uses    INTEGER NOT NULL,
    used    INTEGER NOT NULL DEFAULT 0,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    received INTEGER NOT NULL,
    source   TEXT    NOT NULL, -- node that reported it
    boot     INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    severity INTEGER NOT NULL, -- 0 info, 1 warning, 2 error
    node     TEXT    NOT NULL, -- node that it is about; empty: the network
    body     TEXT    NOT NULL, -- model.Event
    UNIQUE (source, boot, seq)
);
CREATE INDEX events_node ON events (node, id);

CREATE TABLE audit (
    id     INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    target TEXT    NOT NULL,
    remote TEXT    NOT NULL,
    status INTEGER NOT NULL
);

-- +goose Down
DROP TABLE audit;
DROP TABLE events;
DROP TABLE join_tokens;
DROP TABLE registrations;
DROP TABLE interfaces;
DROP TABLE nodes;
DROP TABLE api_tokens;
DROP TABLE refresh_tokens;
DROP TABLE users;
DROP TABLE settings;
