-- +goose Up

-- The audit log becomes a chain of hashes, to which rows are only added. Rows
-- that are there already, and those of a release before, which an update may go
-- back to, have no hash until gateway/audit seals them, before it adds another.
ALTER TABLE audit ADD COLUMN completes INTEGER NOT NULL DEFAULT 0; -- entry whose outcome this row is; 0: it is an entry
ALTER TABLE audit ADD COLUMN hash BLOB; -- of this row and the hash before: model/auditlog
CREATE UNIQUE INDEX audit_completed ON audit (completes) WHERE completes <> 0;

-- The last row that was dropped: from there the rest can be verified.
CREATE TABLE audit_anchor (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    id   INTEGER NOT NULL,
    hash BLOB    NOT NULL
);
INSERT INTO audit_anchor SELECT 1, coalesce(min(id) - 1, 0), x'' FROM audit;

-- A trigger, so that rows which the release before drops leave an anchor, too.
-- +goose StatementBegin
CREATE TRIGGER audit_dropped AFTER DELETE ON audit
BEGIN UPDATE audit_anchor SET id = OLD.id, hash = coalesce(OLD.hash, x'') WHERE id < OLD.id; END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER audit_dropped;
DROP TABLE audit_anchor;
DROP INDEX audit_completed;
DELETE FROM audit WHERE completes <> 0;
ALTER TABLE audit DROP COLUMN hash;
ALTER TABLE audit DROP COLUMN completes;
