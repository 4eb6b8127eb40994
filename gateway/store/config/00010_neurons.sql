-- +goose Up

-- Logical units of the brain, and what their components are assigned to.
CREATE TABLE neurons (
    name        TEXT PRIMARY KEY,
    description TEXT    NOT NULL,
    needs       TEXT    NOT NULL, -- components separated by blanks; empty: those that have parts
    created     INTEGER NOT NULL,
    created_by  TEXT    NOT NULL
) WITHOUT ROWID;

CREATE TABLE neuron_parts (
    neuron    TEXT NOT NULL REFERENCES neurons (name) ON DELETE CASCADE ON UPDATE CASCADE,
    component TEXT NOT NULL CHECK (component IN ('sensor', 'thought', 'memory', 'send')),
    kind      TEXT NOT NULL, -- of model.PartKind; more may come
    target    TEXT NOT NULL, -- outlives what it names: the component then lacks it
    PRIMARY KEY (neuron, component, kind, target)
) WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER neurons_added AFTER INSERT ON neurons BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER neurons_changed AFTER UPDATE ON neurons BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER neurons_removed AFTER DELETE ON neurons BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER neuron_parts_added AFTER INSERT ON neuron_parts BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER neuron_parts_removed AFTER DELETE ON neuron_parts BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER neuron_parts_removed;
DROP TRIGGER neuron_parts_added;
DROP TRIGGER neurons_removed;
DROP TRIGGER neurons_changed;
DROP TRIGGER neurons_added;
DROP TABLE neuron_parts;
DROP TABLE neurons;
