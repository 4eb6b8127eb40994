package radio

import (
	"crypto/rand"
	"log/slog"
	"slices"
	"testing"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/mesh/secure"
	"halo.internal/model/dot11"
)

// deaf returns a radio without a kernel, which hears what the test has it hear.
func deaf(t *testing.T, now time.Time) *Radio {
	t.Helper()
	group, err := peering.NewGroupKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Iface: "mesh0", Log: slog.New(slog.DiscardHandler)})
	r.own, r.heard = dot11.MAC{2, 0, 0, 0, 0, 1}, map[dot11.MAC]*station{}
	r.engine, err = secure.New(
		sae.Config{Own: r.own, MeshID: []byte("valley"), Password: []byte("a password")},
		peering.Config{Own: r.own, MeshID: []byte("valley"), Rates: []byte{0x82}, Group: group}, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.engine.Close)
	return r
}

// TestForgedFramesDoNotMoveALinksSignal, by which links are kept or given up. Who
// has no link is known by such frames alone.
func TestForgedFramesDoNotMoveALinksSignal(t *testing.T) {
	now := time.Now()
	r := deaf(t, now)
	r.fresh = now // there is no kernel to ask for the counters of keys
	linked, other := dot11.MAC{2, 0, 0, 0, 0, 2}, dot11.MAC{2, 0, 0, 0, 0, 3}
	r.heard[linked] = &station{signal: -50, since: now, inKernel: true}
	r.heard[other] = &station{signal: -50}
	for range 20 {
		for _, mac := range []dot11.MAC{linked, other} {
			frame := dot11.AppendManagement(nil, dot11.Header{Subtype: dot11.Action, To: r.own, From: mac})
			for _, e := range []nl80211.Event{
				nl80211.Frame{SignalDBm: -90, Data: append(frame, 15, 1)},
				nl80211.PeerCandidate{MAC: mac[:], SignalDBm: -90},
			} {
				if err := r.handle(now, e); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := r.heard[linked].signal; got != -50 {
		t.Errorf("with a link: %.1f dBm, want what the kernel told", got)
	}
	if got := r.heard[other].signal; got > -85 {
		t.Errorf("without: %.1f dBm, want what was heard", got)
	}
}

// TestFloodOfBeacons has honest members, who are weaker than the rogue, beacon once
// a second among forged beacons: each is sought in the end, and little is kept.
// Whoever is sought does not answer, so that all attempts fail. Time is simulated.
func TestFloodOfBeacons(t *testing.T) {
	honest := []dot11.MAC{{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 3}, {2, 0, 0, 0, 0, 4}}
	for _, tc := range []struct {
		name   string
		forged int // a second
		of     int // addresses, by turns; 0: ever new ones
		times  int // beacons in a row from each
		within time.Duration
	}{
		{"a trickle of new addresses", 10, 0, 1, time.Minute},
		{"ever new addresses", 200, 0, 1, 30 * time.Second},
		{"more new addresses between two beacons than are kept", 600, 0, 1, 5 * time.Minute},
		{"ever new addresses, three beacons each", 200, 0, 3, time.Minute},
		{"the same addresses, ten times a second each", 1000, 100, 1, 40 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := time.Now()
			r := deaf(t, now)
			hear := func(mac dot11.MAC, dBm int) {
				if err := r.candidate(now, nl80211.PeerCandidate{MAC: mac[:], SignalDBm: dBm}); err != nil {
					t.Fatal(err)
				}
			}
			start := now
			defer func() { t.Logf("after %s", now.Sub(start)) }()
			sought := map[dot11.MAC]bool{}
			n, next := 0, now
			for ; len(sought) < len(honest); now = now.Add(100 * time.Millisecond) {
				if now.Sub(start) > tc.within {
					t.Fatalf("after %s, %d of %d members were sought", tc.within, len(sought), len(honest))
				}
				for range tc.forged / 10 {
					i := n / tc.times
					if tc.of > 0 {
						i %= tc.of
					}
					hear(dot11.MAC{2, 0x66, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}, -50)
					n++
				}
				if now.Sub(start)%time.Second == 0 {
					for _, mac := range honest {
						hear(mac, -60)
					}
				}
				r.engine.Advance(now)
				if !now.Before(next) {
					next = now.Add(houseKeeping)
					r.choose(now)
				}
				_, events := r.engine.Take()
				for _, e := range events {
					if e.SAE != nil {
						r.authenticated(now, e.SAE)
					}
				}
				for mac, s := range r.heard {
					if s.wanted && slices.Contains(honest, mac) {
						sought[mac] = true
					}
				}
				if len(r.heard) > maxHeard || len(r.candidates(now)) > maxConsidered+r.c.MaxPeers {
					t.Fatalf("%d stations are kept, %d considered", len(r.heard), len(r.candidates(now)))
				}
			}
		})
	}
}
