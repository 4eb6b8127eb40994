package gateway

import (
	"context"
	"strings"
	"time"

	"halo.internal/gateway/events"
	"halo.internal/gateway/settings"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// settings opens what people have set.
func (d *daemon) settings(ctx context.Context, p *prepared, log *events.Log) (*settings.Store, error) {
	keep := telemetry.DefaultKeep()
	s, unfit, err := settings.Open(ctx, p.config, apitype.Settings{Telemetry: apitype.TelemetrySettings{
		KeepRawS: seconds(keep.Raw), KeepMinuteS: seconds(keep.Minute), KeepQuarterS: seconds(keep.Quarter), KeepHourS: seconds(keep.Hour),
		BudgetBytes: d.Budget,
	}})
	if len(unfit) > 0 {
		names := strings.Join(unfit, " ")
		log.Add("settings.unfit", model.Warning, "", "these settings do not fit this release, and are as it has them: "+names, map[string]string{"settings": names})
	}
	return s, err
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// retention is what the settings say of telemetry.
func retention(t apitype.TelemetrySettings) telemetry.Retention {
	d := func(s int64) time.Duration { return time.Duration(s) * time.Second }
	return telemetry.Retention{
		Keep:   telemetry.Keep{Raw: d(t.KeepRawS), Minute: d(t.KeepMinuteS), Quarter: d(t.KeepQuarterS), Hour: d(t.KeepHourS)},
		Budget: t.BudgetBytes,
	}
}
