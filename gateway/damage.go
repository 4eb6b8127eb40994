package gateway

import (
	"context"
	"errors"

	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/health"
	"halo.internal/model"
)

// copyOf makes a copy of config.db and tells, once, when it finds that damaged: the
// copies stay as they are, since one of them takes its place at the next start.
func (d *daemon) copyOf(db *store.DB, log *events.Log) func(context.Context) error {
	told := false
	return func(ctx context.Context) error {
		err := db.Copy(ctx)
		if errors.Is(err, store.ErrCorrupt) && !told {
			told = true
			d.health.Set(checkConfig, health.Failed, err.Error())
			log.Add("store.config.damaged", model.Error, "", "the config database is damaged on the card; restart the gateway: its last good copy takes its place then. Replace the card", map[string]string{"reason": err.Error()})
		}
		return err
	}
}
