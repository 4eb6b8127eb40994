-- +goose Up

-- Devices that are admitted by a MAC that they say they have.
CREATE TABLE trusted_macs (
    mac        TEXT PRIMARY KEY,
    note       TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    node       TEXT    NOT NULL DEFAULT '', -- who came with it; it admits no other
    used       INTEGER
) WITHOUT ROWID;

-- +goose Down
DROP TABLE trusted_macs;
