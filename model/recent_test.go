package model

import (
	"testing"
	"time"
)

func TestRecent(t *testing.T) {
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		at   time.Time
		want bool
	}{
		{"now", now, true},
		{"just within", now.Add(-time.Minute + 1), true},
		{"just not", now.Add(-time.Minute), false},
		{"a little ahead: the clock was set by a moment", now.Add(time.Minute - 1), true},
		{"ahead: the clock was set back since", now.Add(time.Minute), false},
		{"a year ahead", now.AddDate(1, 0, 0), false},
		{"further ahead than durations go", now.AddDate(400, 0, 0), false},
		{"never", time.Time{}, false},
	} {
		if got := Recent(now, tc.at, time.Minute); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
