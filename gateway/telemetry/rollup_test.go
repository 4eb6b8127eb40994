package telemetry

import (
	"testing"
	"time"
)

// What the forms of a day of a board's twelve metrics take, in octets: minutes of readings
// that are made every ten seconds take as much as those readings, since a bucket is six
// numbers. So there are none beforehand, and later only where they are much smaller
// (ARCHITECTURE.md has the figures).
func TestMinutesAreMadeWhereTheyAreMuchSmaller(t *testing.T) {
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		step    time.Duration
		smaller bool
	}{{time.Second, true}, {5 * time.Second, true}, {10 * time.Second, false}, {30 * time.Second, false}} {
		d := newBoard(4)
		numbers := make([]int, len(d.schema.Metrics))
		for i := range numbers {
			numbers[i] = i
		}
		sizes := map[int]int{}
		integer := func(int) bool { return false }
		rolls := map[int]*roller{quarter: newRoller(quarter, integer), hourly: newRoller(hourly, integer)}
		s := &schema{Schema: d.schema}
		for hour := range int64(24) {
			at := day.Add(time.Duration(hour) * time.Hour)
			b := d.Batch(1, at, int(time.Hour/tc.step), tc.step)
			r := newRows()
			for i := range b.Reports {
				r.addReport(s, numbers, clockNumber(b.Clock), &b.Reports[i])
			}
			body, _, err := r.encode("x")
			if err != nil {
				t.Fatal(err)
			}
			sizes[raw] += len(body)
			readings, _ := r.block(1)
			minutes := newRoller(minute, integer)
			for _, roll := range []*roller{minutes, rolls[quarter], rolls[hourly]} {
				roll.addBlock(readings)
			}
			body, _, err = minutes.encode("x")
			if err != nil {
				t.Fatal(err)
			}
			sizes[minute] += len(body)
		}
		for width, roll := range rolls {
			body, _, err := roll.encode("x")
			if err != nil {
				t.Fatal(err)
			}
			sizes[width] = len(body)
		}
		t.Logf("every %s: readings %d, minutes %d, quarters of an hour %d, hours %d octets", tc.step, sizes[raw], sizes[minute], sizes[quarter], sizes[hourly])
		if smaller := sizes[minute] < sizes[raw]-sizes[raw]/4; smaller != tc.smaller {
			t.Errorf("of readings every %s minutes take %d octets, and the readings %d", tc.step, sizes[minute], sizes[raw])
		}
		if sizes[quarter] > sizes[raw]/3 || sizes[hourly] > sizes[quarter]/2 {
			t.Errorf("every %s: %v", tc.step, sizes)
		}
	}
}
