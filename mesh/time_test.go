package mesh

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/events"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// stopped is a clock that no battery keeps.
type stopped struct{}

func (stopped) Now() time.Time          { return time.Now() }
func (stopped) Set(time.Time) error     { return nil }
func (stopped) RTC() (time.Time, error) { return time.Time{}, errors.New("there is none") }

// mute is a socket on which nobody answers; it counts what is sent.
type mute struct {
	sent chan struct{}
	done chan struct{}
}

func (m mute) Receive([]byte) (int, netip.Addr, error) {
	<-m.done
	return 0, netip.Addr{}, errors.New("closed")
}
func (m mute) Send([]byte, netip.Addr) error   { m.sent <- struct{}{}; return nil }
func (m mute) Watch(ctx context.Context) error { <-ctx.Done(); return nil }
func (m mute) Close() error                    { close(m.done); return nil }

// TestANodeAsksForTheTimeOnceTheGatewayKnowsIt: the gateway came back without a
// clock, answered so, and was given the time since. Nothing else would have the
// node ask for half an hour.
func TestANodeAsksForTheTimeOnceTheGatewayKnowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockNone }
		m := mute{make(chan struct{}, 100), make(chan struct{})}
		quiet := slog.New(slog.DiscardHandler)
		n := &node{
			core: &core{
				Config: Config{Log: quiet},
				clock:  clock.New(stopped{}, time.Now().AddDate(-1, 0, 0)),
				events: events.Open(filepath.Join(t.TempDir(), "events"), "n", 1, now, quiet),
			},
			joinNow: make(chan struct{}, 1), joinHurry: make(chan struct{}, 1), overlayNow: make(chan struct{}, 1),
		}
		network := identity.New()
		n.profiles = newNodeProfile(n, kept{})
		n.search = announce.NewNodeSide(announce.Config{
			Network: network.Public(), Key: identity.New(), Boot: 1, Log: quiet,
			Since: func() uint64 { return 1 }, Steps: func() uint32 { return 0 },
			Open: func() (announce.Socket, error) { return m, nil },
		}, make([]byte, 32), 0, n.hear)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.search.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(5 * time.Minute) // it asks once a minute by now
		asked := func(quality model.ClockQuality) int {
			synctest.Wait()
			before := len(m.sent)
			n.hear(announce.Heard{Gateway: announce.Gateway{Quality: quality}})
			synctest.Wait()
			return len(m.sent) - before
		}
		if got := asked(model.ClockNone); got != 0 {
			t.Errorf("asked %d times a gateway that knows no time", got)
		}
		if got := asked(model.ClockRTC); got != 1 {
			t.Errorf("asked %d times a gateway that knows the time, want once", got)
		}
		n.clock.Resume(clock.State{Quality: model.ClockGateway})
		if got := asked(model.ClockRTC); got != 0 {
			t.Errorf("asked %d times for what it knows", got)
		}
	})
}

// settable is a clock that no battery keeps, and that can be set.
type settable struct{ ahead time.Duration }

func (s *settable) Now() time.Time        { return time.Now().Add(s.ahead).Round(0) }
func (s *settable) Set(t time.Time) error { s.ahead = time.Until(t); return nil }
func (s *settable) RTC() (time.Time, error) {
	return time.Time{}, errors.New("there is none")
}

// battery is a clock that a battery keeps, by so much ahead.
type battery struct{ settable }

func (b *battery) RTC() (time.Time, error) { return b.Now(), nil }

// TestABatteryYearsAhead does not keep a node out of a network whose gateway has the time of a
// login: what that signs is over by the battery.
func TestABatteryYearsAhead(t *testing.T) {
	if clock.Estranged > peerlist.Validity/2 {
		t.Errorf("batteries are believed up to %s, and lists hold %s", clock.Estranged, peerlist.Validity)
	}
	key, own, other := identity.New(), identity.New(), identity.New()
	n := newNode(bareCore(t, key.Public(), own))
	sys := &battery{settable{ahead: 2 * 365 * 24 * time.Hour}}
	n.clock = clock.New(sys, time.Now().AddDate(0, -6, 0))
	n.startClock(func(string, model.Severity, string, ...string) {})
	n.saveClock()
	g := bareGateway(t, key, own, other)
	if err := n.takeList(g.list.raw); err != nil {
		t.Fatal(err)
	}
	if got := n.directPeers(); len(got) != 0 {
		t.Fatalf("the list holds: %d peers", len(got))
	}
	heard := announce.Gateway{Stamp: announce.Stamp{Epoch: 1, Boot: 1, Seq: 1}, Quality: model.ClockLogin, TimeMS: time.Now().UnixMilli(), CASHA256: make([]byte, 32), WireGuardKey: make([]byte, 32)}
	n.hear(announce.Heard{Gateway: heard})
	if sys.ahead < 24*time.Hour {
		t.Fatal("what it says unasked sets the clock")
	}
	n.hear(announce.Heard{Gateway: heard, RoundTrip: time.Millisecond})
	if got := n.directPeers(); len(got) != 1 || sys.ahead.Abs() > time.Minute {
		t.Errorf("%d peers, and it is %s ahead", len(got), sys.ahead)
	}
	list := n.events.After(0, 0)
	if last := list[len(list)-2:]; !slices.ContainsFunc(last, func(e model.Event) bool {
		return e.Kind == eventClockCorrected && e.Severity == model.Warning && strings.Contains(e.Message, "battery")
	}) {
		t.Errorf("events: %+v", last)
	}
	if n.saveClock(); !errors.Is(errSaved(n.core), fs.ErrNotExist) {
		t.Error("what nothing has confirmed is on the card")
	}
	heard.Quality = model.ClockRTC
	n.hear(announce.Heard{Gateway: heard, RoundTrip: time.Millisecond})
	if n.saveClock(); errSaved(n.core) != nil {
		t.Errorf("what a gateway's battery has confirmed: %v", errSaved(n.core))
	}
	// A gateway is the one whose time counts.
	g.clock = clock.New(sys, time.Now().AddDate(0, -6, 0))
	g.startClock(func(string, model.Severity, string, ...string) {})
	if g.saveClock(); errSaved(g.core) != nil || g.clock.Confirmed() {
		t.Errorf("a gateway's battery: %v", errSaved(g.core))
	}
}

// errSaved tells why there is no saved clock.
func errSaved(m *core) error {
	_, err := m.store.Get(paths.Clock, "", func(b []byte) error { _, err := clock.Unmarshal(b); return err })
	return err
}

// TestTheTimeOfALogin is taken by a gateway that knows none, once, within sense, and the
// network hears of it; a node's is the gateway's.
func TestTheTimeOfALogin(t *testing.T) {
	key := identity.New()
	g := bareGateway(t, key)
	build := time.Now().AddDate(0, -6, 0)
	sys := &settable{ahead: -100 * 24 * time.Hour}
	g.clock = clock.New(sys, build)
	offer := func(at time.Time) error {
		return g.OfferTime(model.TimeOffer{Time: at, User: "anna", Remote: "10.42.0.9"})
	}
	events := func() (out []model.Event) {
		for _, e := range g.events.After(0, 0) {
			if e.Fields["source"] == sourceLogin {
				out = append(out, e)
			}
		}
		return out
	}
	for _, wrong := range []time.Time{{}, time.Unix(0, 0), build.AddDate(20, 0, 1)} {
		if err := offer(wrong); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	if e := events(); len(e) != 3 || e[0].Kind != eventClockRefused || g.self().Quality != model.ClockNone {
		t.Errorf("what makes no sense: %+v", e)
	}
	now := time.Now()
	if err := offer(now); err != nil {
		t.Fatal(err)
	}
	e := events()
	if last := e[len(e)-1]; last.Kind != eventClockCorrected || last.Fields["user"] != "anna" || last.Fields["remote"] != "10.42.0.9" || last.Fields["quality"] != string(model.ClockLogin) || last.Fields["to"] != stamp(now) {
		t.Errorf("got %+v", last)
	}
	if m := g.self(); m.Quality != model.ClockLogin || time.Since(time.UnixMilli(m.TimeMS)).Abs() > time.Hour {
		t.Errorf("it announces %s, %s", m.Quality, time.UnixMilli(m.TimeMS))
	}
	if !wokenBy(g.overlayNow) {
		t.Error("the list of members is not looked at")
	}
	var saved time.Time
	if _, err := g.store.Get(paths.Clock, "", func(b []byte) (err error) { saved, err = clock.Unmarshal(b); return err }); err != nil || time.Since(saved).Abs() > time.Hour {
		t.Errorf("the card has %s, %v", saved, err)
	}
	if err := offer(now.AddDate(1, 0, 0)); err != nil || sys.ahead.Abs() > time.Hour || len(events()) != len(e) {
		t.Errorf("a second one: %v, %+v", err, events())
	}
	if err := g.OfferTime(model.TimeOffer{Time: now, User: strings.Repeat("a", 65)}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("a user of 65 octets: %v", err)
	}
	n := newNode(bareCore(t, key.Public(), identity.New()))
	if err := n.OfferTime(model.TimeOffer{Time: now}); !errors.Is(err, api.ErrRole) {
		t.Errorf("a node: %v", err)
	}

	// Of one that was right, nothing but the quality changes.
	g = bareGateway(t, key)
	g.clock = clock.New(&settable{}, build)
	if err := offer(time.Now()); err != nil {
		t.Fatal(err)
	}
	if e := events(); len(e) != 1 || e[0].Kind != eventClockConfirmed {
		t.Errorf("got %+v", e)
	}
}

func wokenBy(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestTheTimeOfGPS is taken by whoever has a receiver, within sense, and the network hears of
// a gateway's.
func TestTheTimeOfGPS(t *testing.T) {
	key := identity.New()
	build := time.Now().AddDate(0, -6, 0)
	told := func(at time.Time) model.GPSTime {
		return model.GPSTime{Time: at, BootNS: int64(bootTime()), AccuracyMS: 1000}
	}
	g := bareGateway(t, key)
	n := newNode(bareCore(t, key.Public(), identity.New()))
	for name, d := range map[string]struct {
		*core
		tell func(model.GPSTime) error
	}{"gateway": {g.core, g.GPSTime}, "node": {n.core, n.GPSTime}} {
		sys := &settable{ahead: 100 * 24 * time.Hour}
		d.clock = clock.New(sys, build)
		events := func() (out []string) {
			for _, e := range d.events.After(0, 0) {
				if e.Fields["source"] == sourceGPS {
					out = append(out, e.Kind)
				}
			}
			return out
		}
		old := told(time.Now())
		old.BootNS -= int64(time.Hour)
		vague := told(time.Now())
		vague.AccuracyMS = 1 << 40
		for _, wrong := range []model.GPSTime{told(build.AddDate(0, 0, -1)), old, vague, {}} {
			if err := d.tell(wrong); !errors.Is(err, api.ErrInvalid) {
				t.Errorf("%s: %+v: %v", name, wrong, err)
			}
		}
		for range 3 {
			if err := d.tell(told(time.Now())); err != nil {
				t.Fatal(name, err)
			}
		}
		if got := strings.Join(events(), " "); got != "clock.refused clock.corrected" {
			t.Errorf("%s: %s", name, got)
		}
		if _, q := d.clock.Now(); q != model.ClockGPS || sys.ahead.Abs() > time.Minute || d.clock.State().Steps != 1 {
			t.Errorf("%s: %s, %s off", name, q, sys.ahead)
		}
		var saved time.Time
		if _, err := d.store.Get(paths.Clock, "", func(b []byte) (err error) { saved, err = clock.Unmarshal(b); return err }); err != nil || time.Since(saved).Abs() > time.Hour {
			t.Errorf("%s: the card has %s, %v", name, saved, err)
		}
	}
	if m := g.self(); m.Quality != model.ClockGPS {
		t.Errorf("it announces %s", m.Quality)
	}
	if !wokenBy(g.overlayNow) {
		t.Error("the list of members is not looked at")
	}
}
