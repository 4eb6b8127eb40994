-- +goose Up

-- Other codes of nodes: a copy must not bring back those that are over.
-- +goose StatementBegin
CREATE TRIGGER codes_renewed AFTER UPDATE OF value ON settings WHEN NEW.name = 'generation of node codes' AND NEW.value <> OLD.value
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER preferences_added AFTER INSERT ON preferences BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER preferences_changed AFTER UPDATE OF value ON preferences WHEN NEW.value <> OLD.value
BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER preferences_removed AFTER DELETE ON preferences BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER preferences_removed;
DROP TRIGGER preferences_changed;
DROP TRIGGER preferences_added;
DROP TRIGGER codes_renewed;
