-- +goose Up

-- What takes longer than a request. Numbers are never used twice: nodes know by
-- epoch and number which commands they have executed.
CREATE TABLE jobs (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch     INTEGER NOT NULL, -- of the gateway when it was made
    boot      INTEGER NOT NULL, -- likewise
    kind      TEXT    NOT NULL,
    node      TEXT    NOT NULL, -- canonical ID; empty: it is about none
    by        TEXT    NOT NULL,
    key       TEXT,             -- by which whoever asked may ask once more
    request   TEXT    NOT NULL, -- JSON
    state     TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER,
    started   INTEGER,
    ended     INTEGER,
    code      TEXT    NOT NULL DEFAULT '',
    message   TEXT    NOT NULL DEFAULT '',
    result    TEXT,             -- JSON
    file      INTEGER,          -- octets of the file that it has made, while that is kept
    file_type TEXT    NOT NULL DEFAULT '',
    UNIQUE (by, key)
);
CREATE INDEX jobs_node ON jobs (node, id);
CREATE INDEX jobs_kind ON jobs (kind, id);
CREATE INDEX jobs_unfinished ON jobs (state) WHERE ended IS NULL;

-- +goose Down
DROP TABLE jobs;
