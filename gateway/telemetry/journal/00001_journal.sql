-- +goose Up

-- One row: which journal this is, for files that say how much of it they hold, and up
-- to which group all is in those.
CREATE TABLE journal (
    name      BLOB    NOT NULL,
    compacted INTEGER NOT NULL,
    sum       INTEGER NOT NULL -- of both: what is taken for a higher group would be lost
);

CREATE TABLE sources (
    id     INTEGER PRIMARY KEY,
    node   TEXT    NOT NULL UNIQUE, -- canonical ID
    sum    INTEGER NOT NULL,     -- of both
    came   BLOB,                 -- which batches, as of the last compaction (came.go)
    latest BLOB                  -- newest readings, likewise (latest.go)
);

CREATE TABLE schemas (
    id     BLOB PRIMARY KEY,
    source INTEGER NOT NULL, -- who sent it first: each node may add a few
    body   BLOB    NOT NULL,
    used   INTEGER NOT NULL  -- day since 1970 of the last compaction that met it
) WITHOUT ROWID;

-- What one commit took in, in one row, so that it writes few pages (group.go).
CREATE TABLE groups (
    id    INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    body  BLOB    NOT NULL
);

-- +goose Down
DROP TABLE groups;
DROP TABLE schemas;
DROP TABLE sources;
DROP TABLE journal;
