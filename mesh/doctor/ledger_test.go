package doctor

import (
	"fmt"
	"testing"
	"time"

	"halo.internal/model"
)

func TestLedger(t *testing.T) {
	var events []model.Event
	l := newLedger(time.Now, func(e model.Event) { events = append(events, e) })
	a := about{fault: model.FaultMTU, peer: "n-a"}
	last := func(kind string, s model.Severity) {
		t.Helper()
		if len(events) == 0 || events[len(events)-1].Kind != kind || events[len(events)-1].Severity != s {
			t.Errorf("got %+v, want %s %s at the end", events, kind, s)
		}
	}
	l.mended(a, "nothing was found")
	l.ended(a, "nothing was found")
	if len(events) != 0 {
		t.Errorf("got %+v", events)
	}
	l.found(a, "x", false)
	l.found(a, "x", false)
	last(EventFound, model.Warning)
	if e := events[0]; len(events) != 1 || e.Fields["fault"] != "mtu" || e.Fields["peer"] != "n-a" || e.Message != "x" {
		t.Errorf("got %+v", events)
	}
	l.found(a, "y", true)
	last(EventFound, model.Error)
	if !l.open(a) || len(l.of(model.FaultMTU)) != 1 {
		t.Error("it is not open")
	}
	l.mended(a, "held")
	l.mended(a, "held")
	last(EventMended, model.Info)
	if l.open(a) || len(events) != 3 || events[2].Fields["detail"] != "y" {
		t.Errorf("got %+v", events)
	}
	l.ended(a, "well")
	l.ended(a, "well")
	last(EventEnded, model.Info)
	if f := l.list(); len(f) != 1 || f[0].Mended == nil || f[0].Ended == nil || f[0].Treatment != "held" || f[0].Times != 1 || len(events) != 4 {
		t.Errorf("got %+v", f)
	}
	l.found(a, "x", false)
	if f := l.list(); len(f) != 1 || f[0].Times != 2 || f[0].Mended != nil || f[0].Ended != nil {
		t.Errorf("the same again: %+v", f)
	}
}

// TestWhatComesBackAgainAndAgainIsToldOfAtAPace, and mended each time.
func TestWhatComesBackAgainAndAgainIsToldOfAtAPace(t *testing.T) {
	told := 0
	l := newLedger(time.Now, func(model.Event) { told++ })
	a := about{fault: model.FaultRoute, what: "missing"}
	for range 100 {
		l.found(a, "gone", false)
		l.mended(a, "put back")
	}
	if f := l.list(); told != 2*tellBurst || f[0].Times != 100 || f[0].Mended == nil {
		t.Errorf("told %d times of %+v", told, f)
	}
	for i := range 2 * maxFindings {
		l.found(about{fault: model.FaultRoute, what: fmt.Sprint(i)}, "gone", false)
	}
	if len(l.list()) != maxFindings {
		t.Errorf("%d findings are kept", len(l.list()))
	}
}
