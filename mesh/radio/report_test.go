package radio

import (
	"testing"
	"time"
)

func TestReports(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	r := &Radio{awaited: map[uint64]awaited{1: {at: start}, 2: {at: start}, 3: {at: start}}}
	after := func(d time.Duration, want Reports) {
		t.Helper()
		r.overdue(start.Add(d))
		if r.reports != want {
			t.Errorf("after %s: got %+v, want %+v", d, r.reports, want)
		}
	}
	after(time.Second, Reports{})
	r.reported(1)
	r.reported(9) // somebody else's
	after(2*time.Second, Reports{1, 1})
	after(6*time.Second, Reports{3, 1})
	after(8*time.Second, Reports{3, 1}) // counted once
	r.reported(2)
	after(9*time.Second, Reports{3, 2})
	after(2*time.Minute, Reports{3, 2})
	if r.reported(3); len(r.awaited) != 0 || r.reports != (Reports{3, 2}) {
		t.Errorf("long after: %d are awaited, %+v", len(r.awaited), r.reports)
	}
}
