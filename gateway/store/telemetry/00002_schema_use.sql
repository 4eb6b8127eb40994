-- +goose Up

-- No batch with a higher id names the schema: once the journal begins after
-- it, the schema has no use. Written ahead of the batches, in steps.
ALTER TABLE schemas ADD COLUMN through INTEGER NOT NULL DEFAULT 0;
UPDATE schemas SET through = (SELECT coalesce(max(id), 0) FROM batches);

-- +goose Down
ALTER TABLE schemas DROP COLUMN through;
