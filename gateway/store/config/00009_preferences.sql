-- +goose Up

-- What people have set, each by its name in the API; what is not here is as the release
-- has it. Facts that nobody sets are in the table settings.
CREATE TABLE preferences (
    name  TEXT PRIMARY KEY, -- e.g. telemetry.budget_bytes
    value TEXT NOT NULL     -- JSON
) WITHOUT ROWID;

-- +goose Down
DROP TABLE preferences;
