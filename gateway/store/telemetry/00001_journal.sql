-- +goose Up

CREATE TABLE sources (
    id   INTEGER PRIMARY KEY,
    node TEXT NOT NULL UNIQUE -- canonical ID
);

CREATE TABLE schemas (
    id     BLOB PRIMARY KEY,
    source INTEGER NOT NULL, -- who sent it first: each node may add a few
    body   BLOB    NOT NULL
) WITHOUT ROWID;

-- The journal: batches as they came, in the order of arrival, so that the
-- bodies of all nodes share pages and a commit writes few of them.
CREATE TABLE batches (
    id       INTEGER PRIMARY KEY,
    source   INTEGER NOT NULL,
    boot     INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms  INTEGER NOT NULL,
    body     BLOB    NOT NULL
);
CREATE UNIQUE INDEX batches_key ON batches (source, boot, seq);

-- What was dropped for space, so that it is not taken for a loss.
CREATE TABLE dropped (
    source  INTEGER NOT NULL,
    boot    INTEGER NOT NULL,
    through INTEGER NOT NULL, -- highest sequence number dropped
    count   INTEGER NOT NULL,
    PRIMARY KEY (source, boot)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE dropped;
DROP TABLE batches;
DROP TABLE schemas;
DROP TABLE sources;
