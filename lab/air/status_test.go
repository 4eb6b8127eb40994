package air

import (
	"encoding/json"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
)

// link finds one direction.
func (s Status) link(t *testing.T, from, to string) Link {
	t.Helper()
	for _, l := range s.Links {
		if l.From == from && l.To == to {
			return l
		}
	}
	t.Fatalf("no link from %s to %s in %+v", from, to, s.Links)
	return Link{}
}

func TestStatus(t *testing.T) {
	a := line(t, WiFi(), 30, 2000)
	if l := a.Status().link(t, "a", "c"); l.Expected < 0.99 || l.DistanceM != 2000 || l.RateKbps != 0 {
		t.Errorf("before any frame, too far: got %+v", l)
	}
	for range 10 {
		a.carry(from(permanent(a2), hwsim.Attempt{Rate: 11, Count: 1}))
	}
	a.SetLoss("a", "b", 0.25)
	a.Cut("c", "b", true)
	a.SetObstacle("b", "a", 3)
	a.Partition([]string{"c"})
	a.Jam(Jammer{FreqMHz: 5180, RaiseDB: 10})
	s := a.Status()
	if len(s.Radios) != 3 || len(s.Links) != 6 || s.Profile != "wifi" || len(s.Jammers) != 1 {
		t.Fatalf("got %+v", s)
	}
	r := s.Radios[0]
	if r.Name != "a" || r.Frames != 10 || r.FreqMHz != 2412 || r.Airtime == 0 || r.Share <= 0 || r.Address != net.HardwareAddr(a1).String() {
		t.Errorf("the sender: got %+v", r)
	}
	if r = s.Radios[2]; r.Group != 1 || r.Frames != 0 {
		t.Errorf("the one that is cut off: got %+v", r)
	}
	l := s.link(t, "a", "b")
	want := 20 - physics.Outdoors().PathLoss(30, 2412)
	if math.Abs(l.SignalDBm-want) > 0.01 || l.RateKbps != 54000 || l.Expected < 0.25 || l.Expected > 0.3 || l.Frames != 10 || l.Heard != 10 || l.Loss != 0.25 || l.Cut {
		t.Errorf("got %+v, want a signal of %.1f dBm", l, want)
	}
	if back := s.link(t, "b", "a"); math.Abs(l.SignalDBm-back.SignalDBm-3) > 0.01 || back.ObstacleDB != 3 {
		t.Errorf("behind the obstacle: got %+v", back)
	}
	if l := s.link(t, "c", "b"); !l.Cut || l.Expected != 1 {
		t.Errorf("cut: got %+v", l)
	}
	b, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(b), `"position":{"x":30,"y":0,"z":0}`) {
		t.Errorf("JSON: %s, %v", b, err)
	}
}

func TestShareForgets(t *testing.T) {
	var s sender
	start := time.Unix(1e9, 0)
	for i := range 60 { // a tenth of each second
		now := start.Add(time.Duration(i) * time.Second)
		s.forget(now)
		s.seconds[now.Unix()%shareSeconds] += 100 * time.Millisecond
	}
	if got := s.share(start.Add(59 * time.Second)); math.Abs(got-0.1) > 1e-9 {
		t.Errorf("at the end: got %g", got)
	}
	if got := s.share(start.Add(74 * time.Second)); math.Abs(got-0.05) > 1e-9 {
		t.Errorf("after half of the window in silence: got %g", got)
	}
	if got := s.share(start.Add(time.Hour)); got != 0 {
		t.Errorf("after an hour: got %g", got)
	}
	s.forget(start) // a clock that is set back must not matter
}
