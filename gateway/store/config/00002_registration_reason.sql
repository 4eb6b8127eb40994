-- +goose Up

-- Why a node that brought a join token waits all the same: the type of problem.
ALTER TABLE registrations ADD COLUMN reason TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE registrations DROP COLUMN reason;
