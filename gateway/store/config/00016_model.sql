-- +goose Up

ALTER TABLE nodes ADD COLUMN serial TEXT NOT NULL DEFAULT ''; -- of the board
ALTER TABLE nodes ADD COLUMN replaces TEXT NOT NULL DEFAULT ''; -- canonical ID of the node whose place it has taken
ALTER TABLE nodes ADD COLUMN quarantined INTEGER; -- since when its key is shut out; absent: it is not
ALTER TABLE nodes ADD COLUMN quarantine TEXT NOT NULL DEFAULT ''; -- why

-- A copy must not let a cloned key in again.
-- +goose StatementBegin
CREATE TRIGGER nodes_quarantined AFTER UPDATE OF quarantined ON nodes WHEN NEW.quarantined IS NOT NULL AND OLD.quarantined IS NULL
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- Pairs of nodes of which an admin has said that one does not replace the other.
CREATE TABLE replacement_dismissals (
    node  TEXT    NOT NULL,
    old   TEXT    NOT NULL,
    time  INTEGER NOT NULL,
    actor TEXT    NOT NULL,
    PRIMARY KEY (node, old)
) WITHOUT ROWID;

-- Which hardware a node's interface has had.
CREATE TABLE interface_hardware (
    node       TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    mac        TEXT    NOT NULL,
    first_seen INTEGER NOT NULL,
    PRIMARY KEY (node, name, mac)
) WITHOUT ROWID;

-- Hosts behind nodes that are no members: people's Clients.
CREATE TABLE endpoints (
    id         TEXT PRIMARY KEY, -- made once, never from an address
    mac        TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL, -- that people gave it
    note       TEXT    NOT NULL,
    node       TEXT    NOT NULL, -- behind which it was last; empty: not known
    body       TEXT    NOT NULL, -- model.Client as last reported
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX endpoints_node ON endpoints (node);

-- Behind which nodes an endpoint was, and from when.
CREATE TABLE endpoint_places (
    endpoint TEXT    NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    since    INTEGER NOT NULL,
    node     TEXT    NOT NULL,
    PRIMARY KEY (endpoint, since)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE endpoint_places;
DROP TABLE endpoints;
DROP TABLE interface_hardware;
DROP TABLE replacement_dismissals;
DROP TRIGGER nodes_quarantined;
ALTER TABLE nodes DROP COLUMN quarantine;
ALTER TABLE nodes DROP COLUMN quarantined;
ALTER TABLE nodes DROP COLUMN replaces;
ALTER TABLE nodes DROP COLUMN serial;
