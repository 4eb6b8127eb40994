-- +goose Up

-- Devices of people's that have a place in the overlay without being members, as long
-- as the certificate of an operator holds that they were registered with.
CREATE TABLE visitors (
    id            TEXT PRIMARY KEY, -- follows from wireguard_key
    wireguard_key TEXT    NOT NULL UNIQUE,
    overlay_v4    TEXT    NOT NULL UNIQUE,
    username      TEXT    NOT NULL,
    label         TEXT    NOT NULL,
    certificate   INTEGER NOT NULL, -- serial number
    registered    INTEGER NOT NULL,
    renewed       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX visitors_username ON visitors (username);

-- +goose StatementBegin
CREATE TRIGGER visitors_added AFTER INSERT ON visitors BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER visitors_removed AFTER DELETE ON visitors BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER visitors_removed;
DROP TRIGGER visitors_added;
DROP TABLE visitors;
