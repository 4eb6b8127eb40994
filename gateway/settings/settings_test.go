package settings

import (
	"database/sql"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

const day = 24 * 60 * 60

var defaults = apitype.Settings{Telemetry: apitype.TelemetrySettings{KeepRawS: 90 * day, KeepMinuteS: 365 * day, KeepQuarterS: 730 * day, KeepHourS: 1825 * day, BudgetBytes: 1 << 30}}

func open(t *testing.T, path string) (*store.DB, *Store, []string) {
	t.Helper()
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, unfit, err := Open(t.Context(), db, defaults)
	if err != nil {
		t.Fatal(err)
	}
	return db, s, unfit
}

func change(u apitype.UpdateTelemetrySettings) apitype.UpdateSettings {
	return apitype.UpdateSettings{Telemetry: &u}
}

func TestAChangeHoldsAtOnceAndForGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	db, s, _ := open(t, path)
	var heard []int64
	s.Watch(func(now apitype.Settings) { heard = append(heard, now.Telemetry.BudgetBytes) })
	want := defaults
	want.Telemetry.BudgetBytes, want.Telemetry.KeepRawS = 64<<20, 7*day
	if got, err := s.Update(t.Context(), change(apitype.UpdateTelemetrySettings{BudgetBytes: new(int64(64 << 20)), KeepRawS: new(int64(7 * day))})); err != nil || got != want || s.Get() != want {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := s.Update(t.Context(), apitype.UpdateSettings{}); err != nil || got != want {
		t.Errorf("a change of nothing: %+v %v", got, err)
	}
	if _, err := s.Update(t.Context(), change(apitype.UpdateTelemetrySettings{KeepHourS: new(int64(8 * day)), BudgetBytes: new(int64(32 << 20))})); err == nil || !strings.Contains(err.Error(), "telemetry.keep_hour_s: expected at least telemetry.keep_quarter_s") {
		t.Errorf("hours for a shorter time than quarters: %v", err)
	}
	if s.Get() != want || !slices.Equal(heard, []int64{1 << 30, 64 << 20, 64 << 20}) {
		t.Errorf("%+v, heard %v", s.Get(), heard)
	}
	db.Close()
	if _, s, unfit := open(t, path); s.Get() != want || len(unfit) != 0 {
		t.Errorf("after a start: %+v %v", s.Get(), unfit)
	}
}

func TestWhatIsNotCommittedDoesNotHold(t *testing.T) {
	db, s, _ := open(t, filepath.Join(t.TempDir(), "config.db"))
	s.Watch(func(now apitype.Settings) {
		if now != defaults {
			t.Errorf("heard of %+v", now)
		}
	})
	db.Close()
	if got, err := s.Update(t.Context(), change(apitype.UpdateTelemetrySettings{BudgetBytes: new(int64(64 << 20))})); err == nil || got != defaults || s.Get() != defaults {
		t.Errorf("%+v %v", got, err)
	}
}

// What another release has left, or nobody could have set, does not hold, and the rest does.
func TestWhatDoesNotFitIsLeftOut(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kept  map[string]string
		unfit []string
		want  func(*apitype.TelemetrySettings)
	}{
		{"a setting of a later release", map[string]string{"portal.colour": `"red"`, "telemetry.keep_raw_s": strconv.Itoa(day)}, nil, func(t *apitype.TelemetrySettings) { t.KeepRawS = day }},
		{"another type", map[string]string{"telemetry.keep_raw_s": `"90d"`, "telemetry.budget_bytes": "33554432"}, []string{"telemetry.keep_raw_s"}, func(t *apitype.TelemetrySettings) { t.BudgetBytes = 32 << 20 }},
		{"out of bounds", map[string]string{"telemetry.budget_bytes": "1"}, []string{"telemetry.budget_bytes"}, func(*apitype.TelemetrySettings) {}},
		{"not all together", map[string]string{"telemetry.keep_hour_s": strconv.Itoa(day), "telemetry.budget_bytes": "33554432"}, []string{"telemetry.keep_hour_s", "telemetry.budget_bytes"}, func(*apitype.TelemetrySettings) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			db, _, _ := open(t, path)
			if err := db.Write(t.Context(), func(tx *sql.Tx) (err error) {
				for name, value := range tc.kept {
					_, e := tx.ExecContext(t.Context(), `INSERT INTO preferences VALUES (?, ?)`, name, value)
					err = errors.Join(err, e)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			want := defaults
			tc.want(&want.Telemetry)
			s, unfit, err := Open(t.Context(), db, defaults)
			if err != nil || s.Get() != want || !slices.Equal(unfit, tc.unfit) {
				t.Errorf("%+v, unfit %v, %v", s.Get(), unfit, err)
			}
		})
	}
}

// The bounds that the API states are those that hold.
func TestBoundsAreStated(t *testing.T) {
	for f := range reflect.TypeFor[apitype.UpdateTelemetrySettings]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		i := slices.IndexFunc(fields, func(k field) bool { return k.name == "telemetry."+name })
		if i < 0 {
			t.Errorf("%s is no setting", name)
			continue
		}
		for tag, by := range map[string]int64{"minimum": -1, "maximum": 1} {
			n, err := strconv.ParseInt(f.Tag.Get(tag), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			var s apitype.Settings
			if err := fields[i].read(&s, strconv.AppendInt(nil, n, 10)); err != nil {
				t.Error(err)
			}
			if err := fields[i].read(&s, strconv.AppendInt(nil, n+by, 10)); err == nil {
				t.Errorf("%s: %s %d is not its bound", name, tag, n)
			}
		}
	}
	if got := Names(change(apitype.UpdateTelemetrySettings{KeepHourS: new(int64(1)), BudgetBytes: new(int64(1))})); got != "telemetry.keep_hour_s telemetry.budget_bytes" {
		t.Errorf("names %q", got)
	}
}
