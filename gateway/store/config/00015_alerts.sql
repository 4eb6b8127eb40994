-- +goose Up

-- Conditions that last or have lasted.
CREATE TABLE alerts (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT    NOT NULL,
    node     TEXT    NOT NULL, -- that it is about; empty: the network or the gateway's own processes
    subject  TEXT    NOT NULL, -- which of several of a kind, such as a file system
    severity INTEGER NOT NULL, -- 0 info, 1 warning, 2 error
    message  TEXT    NOT NULL,
    fields   TEXT    NOT NULL, -- JSON object of texts
    opened   INTEGER NOT NULL,
    closed   INTEGER,
    acked    INTEGER,
    acked_by TEXT    NOT NULL DEFAULT '',
    note     TEXT    NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX alerts_open ON alerts (kind, node, subject) WHERE closed IS NULL;
CREATE INDEX alerts_closed ON alerts (closed) WHERE closed IS NOT NULL;

-- Who has taken note of an event.
CREATE TABLE event_acks (
    event INTEGER PRIMARY KEY REFERENCES events (id) ON DELETE CASCADE,
    time  INTEGER NOT NULL,
    actor TEXT    NOT NULL,
    note  TEXT    NOT NULL
);

-- +goose Down
DROP TABLE event_acks;
DROP TABLE alerts;
