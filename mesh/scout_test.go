package mesh

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/batman"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// TestOneScoutAtATime plays a day of devices that reach each other and not the
// gateway.
func TestOneScoutAtATime(t *testing.T) {
	for _, count := range []int{1, 2, 3, 7, 40} {
		went := make([][]time.Duration, count) // when each was away
		last := time.Duration(-1)
		for silent := time.Duration(0); silent < 24*time.Hour; silent += 10 * time.Second {
			goes := 0
			for rank := range count {
				began, ends, ours := scout{rank, count}.turn(silent)
				if silent >= scoutFirst && (began > silent || ends <= silent || ends-began < scoutTurn) {
					t.Fatalf("%d devices, after %s: a turn from %s to %s", count, silent, began, ends)
				}
				n := len(went[rank])
				if ours && (n == 0 || went[rank][n-1] < began) {
					went[rank] = append(went[rank], silent)
					goes++
				}
			}
			if goes == 0 {
				continue
			}
			if silent < scoutFirst || goes > 1 || last >= 0 && silent-last < scoutTurn {
				t.Fatalf("%d devices, after %s: %d of them away, %s after the one before", count, silent, goes, silent-last)
			}
			last = silent
		}
		for rank, at := range went {
			// Those that were left behind are all looked for within minutes of each
			// other; a network whose gateway is off for a day is left in peace.
			if len(at) == 0 || at[0] > scoutFirst+time.Duration(count)*scoutTurn {
				t.Errorf("%d devices: number %d went at %v, want it to have gone after %s", count, rank, at, scoutFirst+time.Duration(count)*scoutTurn)
			}
			if most := int(24*time.Hour/scoutMost)/count + 5; len(at) > most {
				t.Errorf("%d devices: number %d went %d times in a day, want at most %d", count, rank, len(at), most)
			}
			if n := len(at); count > 1 && count < 20 && n > 1 && at[n-1]-at[n-2] < time.Duration(count)*scoutMost {
				t.Errorf("%d devices: number %d went twice within %s in the end", count, rank, at[n-1]-at[n-2])
			}
		}
	}
}

func TestWhoIsAScout(t *testing.T) {
	gateway, own, near, away := identity.New().Public(), identity.New().Public(), identity.New().Public(), identity.New().Public()
	all := []identity.PublicKey{own, near, away, gateway}
	at := func(key identity.PublicKey, turn uint8) dot11.MAC { return dot11.MAC(batman.MAC(key, turn)) }
	first := 0
	if near.ID() < own.ID() {
		first = 1
	}
	for _, tc := range []struct {
		name  string
		there map[dot11.MAC]bool
		want  scout
		ok    bool
	}{
		{"nobody can tell", nil, scout{0, 1}, true},
		{"nobody else", map[dot11.MAC]bool{at(own, 0): true}, scout{0, 1}, true},
		{"a member, by the address of its third start", map[dot11.MAC]bool{at(near, 2): true}, scout{first, 2}, true},
		{"a stranger", map[dot11.MAC]bool{{2, 0, 0, 0, 0, 9}: true}, scout{0, 1}, true},
		{"the gateway, which says nothing", map[dot11.MAC]bool{at(near, 2): true, at(gateway, 1): true}, scout{}, false},
	} {
		if got, ok := scoutAmong(own, gateway, all, tc.there); got != tc.want || ok != tc.ok {
			t.Errorf("%s: got %+v, %v, want %+v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}

// crowded is an underlay of two radios, of which others have one scan now and then.
type crowded struct {
	quiet
	began time.Time
	busy  int // how often phy1 does not listen

	scans map[string][]time.Duration // when each radio was asked
}

func (*crowded) Present() map[dot11.MAC]bool { return nil }

func (*crowded) Radios() []model.Radio {
	return []model.Radio{{Name: "phy0", Iface: "mesh0", Channel: 1}, {Name: "phy1", Iface: "mesh1", Channel: 36}, {Name: "phy2", Iface: "mesh2", HaLow: "1"}, {Name: "phy3"}}
}

func (c *crowded) Scan(_ context.Context, q model.ScanRequest) (model.RadioScan, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scans[q.Radio] = append(c.scans[q.Radio], time.Since(c.began))
	if q.Radio == "phy1" && len(c.scans[q.Radio]) <= c.busy {
		return model.RadioScan{}, fmt.Errorf("%w: another scan is under way", api.ErrBusy)
	}
	return model.RadioScan{}, nil
}

// TestAScoutKeepsItsTurn plays a node that is alone for its first turn and longer, and
// whose radio is busy when it comes.
func TestAScoutKeepsItsTurn(t *testing.T) {
	const first, second = scoutFirst, scoutFirst + scoutTurn
	for _, tc := range []struct {
		name  string
		busy  int
		heard time.Duration // when the gateway is; 0: it is not
		want  []time.Duration
	}{
		{name: "never busy", want: []time.Duration{first, second}},
		{name: "busy at first", busy: 1, want: []time.Duration{first, first + scoutAgain, second}},
		{name: "busy for long", busy: 99, want: []time.Duration{first, first + scoutAgain, first + 3*scoutAgain, first + 7*scoutAgain, second}},
		{name: "the gateway is heard", busy: 99, heard: first + 2*scoutAgain, want: []time.Duration{first, first + scoutAgain}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(bareCore(t, identity.New().Public(), identity.New()))
				u := &crowded{began: time.Now(), busy: tc.busy, scans: map[string][]time.Duration{}}
				n.under = u
				var scans sync.WaitGroup
				ctx, stop := context.WithCancel(t.Context())
				for i := range int(second.Seconds()) + 2 { // as it is called once a second
					if at := time.Duration(i) * time.Second; tc.heard != 0 && at == tc.heard {
						n.profiles.hear(announce.Gateway{Stamp: announce.Stamp{Epoch: 1}})
					}
					n.profiles.seek(ctx, time.Now(), &scans)
					time.Sleep(time.Second)
				}
				stop()
				scans.Wait()
				if got := u.scans["phy1"]; !slices.Equal(got, tc.want) {
					t.Errorf("the radio was to listen after %v, want %v", got, tc.want)
				}
				want := []time.Duration{first, second}
				if tc.heard != 0 {
					want = want[:1]
				}
				if got := u.scans["phy0"]; !slices.Equal(got, want) {
					t.Errorf("the other radio was to listen after %v, want %v", got, want)
				}
				if len(u.scans) != 2 {
					t.Errorf("others were asked: %v", u.scans)
				}
			})
		})
	}
}
