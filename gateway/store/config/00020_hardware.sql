-- +goose Up

-- What is on the buses of nodes, as each last told it: model.Inventory.
CREATE TABLE inventories (
    node   TEXT PRIMARY KEY,
    digest TEXT    NOT NULL, -- as the node names it
    body   TEXT    NOT NULL,
    time   INTEGER NOT NULL
) WITHOUT ROWID;

-- What people say of sensors: how they are called, and where they are. A sensor is named by
-- its place on the node.
CREATE TABLE sensors (
    node  TEXT    NOT NULL,
    key   TEXT    NOT NULL, -- model.SensorKey
    name  TEXT    NOT NULL,
    place TEXT    NOT NULL,
    time  INTEGER NOT NULL,
    PRIMARY KEY (node, key)
) WITHOUT ROWID;

-- Templates of people's, which all nodes get. One without a text was deleted: nodes that
-- have it still are told.
CREATE TABLE sensor_templates (
    name   TEXT PRIMARY KEY,
    digest TEXT    NOT NULL,
    text   TEXT,
    actor  TEXT    NOT NULL,
    time   INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER sensors_named AFTER INSERT ON sensors BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sensors_renamed AFTER UPDATE ON sensors WHEN NEW.name <> OLD.name OR NEW.place <> OLD.place
BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sensor_templates_added AFTER INSERT ON sensor_templates BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sensor_templates_changed AFTER UPDATE ON sensor_templates BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE sensor_templates;
DROP TABLE sensors;
DROP TABLE inventories;
