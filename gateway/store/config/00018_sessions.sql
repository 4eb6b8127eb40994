-- +goose Up

-- Of a login: when it began, and from where it was used last.
ALTER TABLE refresh_tokens ADD COLUMN started INTEGER;
ALTER TABLE refresh_tokens ADD COLUMN remote TEXT;

-- +goose Down
ALTER TABLE refresh_tokens DROP COLUMN remote;
ALTER TABLE refresh_tokens DROP COLUMN started;
