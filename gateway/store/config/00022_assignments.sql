-- +goose Up

-- What people had said of sensors of a node whose place another has taken, until that one
-- has been told. A sensor is named by its place on the node.
CREATE TABLE sensor_assignments (
    node TEXT NOT NULL,
    key  TEXT NOT NULL, -- model.SensorKey
    body TEXT NOT NULL, -- model.SensorCommand
    PRIMARY KEY (node, key)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE sensor_assignments;
