-- +goose Up

-- Whom a registration is counted against: an address, or an IPv6 network.
ALTER TABLE registrations ADD COLUMN origin TEXT NOT NULL DEFAULT '';
UPDATE registrations SET origin = remote;

-- +goose Down
ALTER TABLE registrations DROP COLUMN origin;
