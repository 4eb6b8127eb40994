-- +goose Up

-- What people have set of the gateway's firewall (model.FirewallPolicy): what holds
-- for good, what is being edited, and what is on trial.
CREATE TABLE firewall (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    kept     TEXT    NOT NULL DEFAULT '{}',
    kept_at  INTEGER,
    kept_by  TEXT    NOT NULL DEFAULT '',
    draft    TEXT,             -- absent: the same as kept
    draft_at INTEGER,
    draft_by TEXT    NOT NULL DEFAULT '',
    trial    TEXT,             -- absent: none
    trial_at INTEGER,
    trial_by TEXT    NOT NULL DEFAULT '',
    reverted TEXT              -- apitype.FirewallReverted, of the last trial, until another begins or one is kept
);
INSERT INTO firewall (one) VALUES (1);

-- A port that was shut must not come open again with a copy.
-- +goose StatementBegin
CREATE TRIGGER firewall_kept AFTER UPDATE OF kept ON firewall WHEN NEW.kept <> OLD.kept
BEGIN UPDATE copy_marks SET withdrawal = randomblob(8); END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER firewall_kept;
DROP TABLE firewall;
