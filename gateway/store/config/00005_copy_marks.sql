-- +goose Up

-- What a copy of this database is compared by. Each mark is drawn anew within
-- the transaction of a change: a copy with another one lacks that change.
CREATE TABLE copy_marks (
    change     BLOB NOT NULL, -- something that must not be lost was written
    withdrawal BLOB NOT NULL  -- something was taken away that must not come back
);
INSERT INTO copy_marks VALUES (randomblob(8), randomblob(8));

-- +goose StatementBegin
CREATE TRIGGER users_added AFTER INSERT ON users BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER users_changed AFTER UPDATE OF role, password, disabled ON users BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER users_removed AFTER DELETE ON users BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER api_tokens_added AFTER INSERT ON api_tokens BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER api_tokens_removed AFTER DELETE ON api_tokens BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER nodes_added AFTER INSERT ON nodes BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER nodes_changed AFTER UPDATE OF name, wireguard_key ON nodes
WHEN NEW.name <> OLD.name OR NEW.wireguard_key <> OLD.wireguard_key
BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER nodes_revoked AFTER UPDATE OF revoked ON nodes WHEN NEW.revoked <> OLD.revoked
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER registrations_rejected AFTER UPDATE OF state ON registrations WHEN NEW.state = 'rejected' AND OLD.state <> 'rejected'
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER join_tokens_added AFTER INSERT ON join_tokens WHEN NOT NEW.revoked
BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER join_tokens_barred AFTER INSERT ON join_tokens WHEN NEW.revoked
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER join_tokens_revoked AFTER UPDATE OF revoked ON join_tokens WHEN NEW.revoked AND NOT OLD.revoked
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER trusted_macs_added AFTER INSERT ON trusted_macs BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER trusted_macs_bound AFTER UPDATE OF node ON trusted_macs WHEN NEW.node <> OLD.node
BEGIN UPDATE copy_marks SET change = randomblob(8); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER trusted_macs_removed AFTER DELETE ON trusted_macs BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- The claim code, once it is used: a copy that still has it would let somebody
-- else claim the gateway.
-- +goose StatementBegin
CREATE TRIGGER settings_removed AFTER DELETE ON settings BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER settings_removed;
DROP TRIGGER trusted_macs_removed;
DROP TRIGGER trusted_macs_bound;
DROP TRIGGER trusted_macs_added;
DROP TRIGGER join_tokens_revoked;
DROP TRIGGER join_tokens_barred;
DROP TRIGGER join_tokens_added;
DROP TRIGGER registrations_rejected;
DROP TRIGGER nodes_revoked;
DROP TRIGGER nodes_changed;
DROP TRIGGER nodes_added;
DROP TRIGGER api_tokens_removed;
DROP TRIGGER api_tokens_added;
DROP TRIGGER users_removed;
DROP TRIGGER users_changed;
DROP TRIGGER users_added;
DROP TABLE copy_marks;
