-- +goose Up

-- Secrets, each sealed under the key that lies beside this database (gateway/seal).
-- Those that a former release keeps in settings are moved here by whoever uses them.
CREATE TABLE secrets (
    name   TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER secrets_added AFTER INSERT ON secrets BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER secrets_changed AFTER UPDATE ON secrets BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER secrets_removed AFTER DELETE ON secrets BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER secrets_removed;
DROP TRIGGER secrets_changed;
DROP TRIGGER secrets_added;
DROP TABLE secrets;
