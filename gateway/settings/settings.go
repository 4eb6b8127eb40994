// Package settings is what people set of the gateway, typed, checked and kept in config.db.
// Whoever goes by some of them watches, and hears of each change at once: nothing has to
// start again.
package settings

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// Store is the settings that hold.
type Store struct {
	db       *store.DB
	defaults apitype.Settings

	changing sync.Mutex // one change at a time, until all have heard of it

	mu       sync.Mutex // guards what follows
	now      apitype.Settings
	watchers []func(apitype.Settings)
}

// Open reads what people have set; the rest is as defaults has it. What is kept and does
// not hold, as after a release that knew other bounds, is returned by its name and is as
// defaults has it.
func Open(ctx context.Context, db *store.DB, defaults apitype.Settings) (s *Store, unfit []string, err error) {
	s = &Store{db: db, defaults: defaults, now: defaults}
	kept := map[string][]byte{}
	rows, err := db.Read().QueryContext(ctx, `SELECT name, value FROM preferences`)
	if err != nil {
		return nil, nil, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var value []byte
		if err := rows.Scan(&name, &value); err != nil {
			return nil, nil, store.Classify(err)
		}
		kept[name] = value
	}
	if err := rows.Err(); err != nil {
		return nil, nil, store.Classify(err)
	}
	next := defaults
	for _, f := range fields {
		if value, ok := kept[f.name]; ok && f.read(&next, value) != nil {
			unfit = append(unfit, f.name)
		}
	}
	if err := check(next); err != nil { // each by itself may hold, and not all together
		next, unfit = defaults, nil
		for _, f := range fields {
			if _, ok := kept[f.name]; ok {
				unfit = append(unfit, f.name)
			}
		}
	}
	s.now = next
	return s, unfit, nil
}

// Get returns the settings that hold.
func (s *Store) Get() apitype.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Watch calls f with the settings, now and after each change, one call at a time.
func (s *Store) Watch(f func(apitype.Settings)) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	s.watchers = append(s.watchers, f)
	now := s.now
	s.mu.Unlock()
	f(now)
}

// Tag returns the entity tag of settings.
func Tag(s apitype.Settings) string { return etag.Of(s) }

// Update commits a change and has it hold: when it returns an error nothing has changed.
func (s *Store) Update(ctx context.Context, u apitype.UpdateSettings) (apitype.Settings, error) {
	return s.UpdateIf(ctx, etag.Match{}, u)
}

// UpdateIf is Update where the settings meet a condition.
func (s *Store) UpdateIf(ctx context.Context, m etag.Match, u apitype.UpdateSettings) (apitype.Settings, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	before := s.Get()
	if err := m.Check(Tag(before)); err != nil {
		return before, err
	}
	next := before
	var set []field
	for _, f := range fields {
		if f.change(&next, &u) {
			set = append(set, f)
		}
	}
	if err := check(next); err != nil {
		return before, err
	}
	if err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, f := range set {
			if _, err := tx.ExecContext(ctx, `INSERT INTO preferences (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, f.name, f.value(&next)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return before, err
	}
	s.mu.Lock()
	s.now = next
	watchers := slices.Clone(s.watchers)
	s.mu.Unlock()
	for _, f := range watchers {
		f(next)
	}
	return next, nil
}

// check judges settings that belong together.
func check(s apitype.Settings) error {
	t := s.Telemetry
	ages := []struct {
		name string
		is   int64
	}{{"keep_raw_s", t.KeepRawS}, {"keep_minute_s", t.KeepMinuteS}, {"keep_quarter_s", t.KeepQuarterS}, {"keep_hour_s", t.KeepHourS}}
	for i := 1; i < len(ages); i++ {
		if low, a := ages[i-1], ages[i]; a.is < low.is {
			p := apitype.Refuse(http.StatusUnprocessableEntity, "", "telemetry.%s: expected at least telemetry.%s, which is %d, got %d", a.name, low.name, low.is, a.is)
			p.Errors = []apitype.Detail{{Message: fmt.Sprintf("expected at least %d", low.is), Location: "body.telemetry." + a.name}}
			return p
		}
	}
	return nil
}

// field is one setting.
type field struct {
	name string
	// value is how it is kept, read takes that back, and change takes it from a request that
	// names it.
	value  func(*apitype.Settings) []byte
	read   func(*apitype.Settings, []byte) error
	change func(*apitype.Settings, *apitype.UpdateSettings) bool
}

// number is a whole number within bounds.
func number(name string, of func(*apitype.Settings) *int64, in func(*apitype.UpdateSettings) *int64, low, high int64) field {
	return field{
		name:  name,
		value: func(s *apitype.Settings) []byte { return fmt.Append(nil, *of(s)) },
		read: func(s *apitype.Settings, kept []byte) error {
			var n int64
			if err := json.Unmarshal(kept, &n); err != nil || n < low || n > high {
				return fmt.Errorf("%s: expected a number from %d to %d, got %.40q", name, low, high, kept)
			}
			*of(s) = n
			return nil
		},
		change: func(s *apitype.Settings, u *apitype.UpdateSettings) bool {
			n := in(u)
			if n != nil {
				*of(s) = *n
			}
			return n != nil
		},
	}
}

// Bounds, which are also those of apitype.UpdateTelemetrySettings. Each week that
// is kept is a file.
const (
	minKeep   = 24 * 60 * 60
	maxKeep   = 366 * 7 * minKeep
	minBudget = 16 << 20
	maxBudget = 1 << 40
)

var fields = []field{
	telemetry("keep_raw_s", func(t *apitype.TelemetrySettings) *int64 { return &t.KeepRawS }, func(t *apitype.UpdateTelemetrySettings) *int64 { return t.KeepRawS }, minKeep, maxKeep),
	telemetry("keep_minute_s", func(t *apitype.TelemetrySettings) *int64 { return &t.KeepMinuteS }, func(t *apitype.UpdateTelemetrySettings) *int64 { return t.KeepMinuteS }, minKeep, maxKeep),
	telemetry("keep_quarter_s", func(t *apitype.TelemetrySettings) *int64 { return &t.KeepQuarterS }, func(t *apitype.UpdateTelemetrySettings) *int64 { return t.KeepQuarterS }, minKeep, maxKeep),
	telemetry("keep_hour_s", func(t *apitype.TelemetrySettings) *int64 { return &t.KeepHourS }, func(t *apitype.UpdateTelemetrySettings) *int64 { return t.KeepHourS }, minKeep, maxKeep),
	telemetry("budget_bytes", func(t *apitype.TelemetrySettings) *int64 { return &t.BudgetBytes }, func(t *apitype.UpdateTelemetrySettings) *int64 { return t.BudgetBytes }, minBudget, maxBudget),
}

func telemetry(name string, of func(*apitype.TelemetrySettings) *int64, in func(*apitype.UpdateTelemetrySettings) *int64, low, high int64) field {
	return number("telemetry."+name,
		func(s *apitype.Settings) *int64 { return of(&s.Telemetry) },
		func(u *apitype.UpdateSettings) *int64 {
			if u.Telemetry == nil {
				return nil
			}
			return in(u.Telemetry)
		}, low, high)
}

// Names returns the names of those that a change names, as the audit log has them.
func Names(u apitype.UpdateSettings) string {
	var names []string
	for _, f := range fields {
		if f.change(&apitype.Settings{}, &u) {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, " ")
}
