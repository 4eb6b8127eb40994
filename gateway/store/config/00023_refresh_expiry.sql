-- +goose Up

-- With each login and each refresh, tokens are looked for that have expired, or would be
-- good for too long.
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires);

-- +goose Down
DROP INDEX refresh_tokens_expires;
