package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/settings"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// sure tells whether the clock is more than a guess: a laptop has one.
func (d *daemon) sure() bool { return d.Alone || d.clock.Quality() != model.ClockNone }

// horizon has what is dropped for its age go by a time that steps of the clock do not
// move, over restarts too. The function that it returns has to run.
func (d *daemon) horizon(ctx context.Context, p *prepared) (func(context.Context) error, error) {
	const setting = "horizon" // clock.Span
	kept, err := p.config.Setting(ctx, setting, nil)
	if err != nil {
		return nil, err
	}
	var span clock.Span
	if kept != nil {
		if err := json.Unmarshal(kept, &span); err != nil {
			d.Log.Warn("what is old is judged by the clock alone", "err", err)
			span = clock.Span{}
		}
	}
	h := d.clock.Follow(span, d.sure, nil)
	return func(ctx context.Context) error {
		return h.Run(ctx, func(ctx context.Context, s clock.Span) error {
			b, err := json.Marshal(s)
			if err != nil {
				return err
			}
			return p.config.PutSetting(ctx, setting, b)
		})
	}, nil
}

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
