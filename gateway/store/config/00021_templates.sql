-- +goose Up

-- Of the texts that a template had before: nodes that were off when it changed have one of
-- them, and are told when it is deleted.
ALTER TABLE sensor_templates ADD COLUMN former TEXT NOT NULL DEFAULT ''; -- digests, between spaces, the newest last

-- +goose Down
ALTER TABLE sensor_templates DROP COLUMN former;
