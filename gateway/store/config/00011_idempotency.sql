-- +goose Up

-- Answers to requests that carried an Idempotency-Key, for when they come again. A row
-- is there exactly when its request was carried out. Neither the key nor the answer can
-- be read from it: both take the client's key and the gateway's.
CREATE TABLE idempotency (
    id      BLOB PRIMARY KEY,    -- of caller, operation and key
    caller  TEXT    NOT NULL,
    request BLOB    NOT NULL,    -- MAC of what was asked for
    answer  BLOB,                -- encrypted; NULL: it was lost, or is too long to be kept
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_created ON idempotency (created);

-- +goose Down
DROP TABLE idempotency;
