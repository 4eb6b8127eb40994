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
	"halo.internal/mesh/change"
	"halo.internal/mesh/peerlist"
	"halo.internal/mesh/profile"
	"halo.internal/model"
	"halo.internal/model/bundle"
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
	heard map[string][]model.RadioNetwork

	scans map[string][]time.Duration // when each radio was asked
}

func (*crowded) Present() map[dot11.MAC]bool { return nil }

func (*crowded) Radios() []model.Radio {
	return []model.Radio{{Name: "phy0", Iface: "mesh0", Channel: 1}, {Name: "phy1", Iface: "mesh1", Channel: 36}, {Name: "phy2", Iface: "mesh2", Channel: 40, HaLow: "S1G channel 7"}, {Name: "phy3"}}
}

func (c *crowded) Scan(_ context.Context, q model.ScanRequest) (model.RadioScan, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scans[q.Radio] = append(c.scans[q.Radio], time.Since(c.began))
	if q.Radio == "phy1" && len(c.scans[q.Radio]) <= c.busy {
		return model.RadioScan{}, fmt.Errorf("%w: another scan is under way", api.ErrBusy)
	}
	return model.RadioScan{Networks: c.heard[q.Radio]}, nil
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
				for _, name := range []string{"phy0", "phy2"} {
					if got := u.scans[name]; !slices.Equal(got, want) {
						t.Errorf("radio %s was to listen after %v, want %v", name, got, want)
					}
				}
				if len(u.scans) != 3 {
					t.Errorf("others were asked: %v", u.scans)
				}
			})
		})
	}
}

// together is an underlay on which routing knows a way to others.
type together struct {
	crowded
	there map[dot11.MAC]bool
}

func (u *together) Present() map[dot11.MAC]bool { return u.there }

// TestOneIsAwayAtATime of five devices whose gateway is off, and in whose mesh's name
// somebody beacons on another channel. Nobody goes where the mesh was before.
func TestOneIsAwayAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateway := identity.New().Public()
		home := bundle.Mesh{SSID: "M", PSK: "correct horse battery", Routing: "BATMAN_IV"}.WithDefaults()
		strange, before, secret := home, home, home
		strange.Channel, before.Channel, secret.PSK = 6, 11, "the secret of before"
		d := profile.Opened{Document: profile.Document{Epoch: 1, Serial: 1, Mesh: home}}
		for _, m := range []bundle.Mesh{before, secret} {
			d.Former = append(d.Former, profile.Former{Mesh: m, Until: time.Now().Add(profile.Keep)})
		}
		keys, there, list := make([]identity.Key, 5), map[dot11.MAC]bool{}, []peerlist.Peer{}
		for i := range keys {
			keys[i] = identity.New()
			there[dot11.MAC(batman.MAC(keys[i].Public(), 0))] = true
			list = append(list, peerlist.Peer{Key: keys[i].Public()})
		}
		nodes := make([]*nodeProfile, len(keys))
		for i, k := range keys {
			n := newNode(bareCore(t, gateway, k))
			heard := map[string][]model.RadioNetwork{"phy0": {{Own: true, Channel: strange.Channel}}}
			n.under = &together{crowded{began: time.Now(), scans: map[string][]time.Duration{}, heard: heard}, there}
			n.list.Peers = list
			nodes[i] = n.profiles
			nodes[i].m = change.NewNode(change.Timing{}, home, d, nil, time.Now())
			nodes[i].on = nodes[i].m.On()
		}
		ctx, stop := context.WithCancel(t.Context())
		var scans sync.WaitGroup
		visits := make([]int, len(nodes))
		for range int((6 * time.Hour).Seconds()) {
			away := 0
			for i, p := range nodes {
				was := p.m.On()
				p.m.Peers(time.Now(), 1)
				p.advance(time.Now())
				p.seek(ctx, time.Now(), &scans)
				switch on := p.m.On(); on {
				case home:
				case strange:
					if away++; was != on {
						visits[i]++
					}
				default:
					t.Fatalf("number %d uses channel %d with %q", i, on.Channel, on.PSK)
				}
			}
			if away > 1 {
				t.Fatalf("%d devices are away at once", away)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		stop()
		scans.Wait()
		for i, n := range visits {
			if n < 2 || n > 6 {
				t.Errorf("number %d was away %d times in 6 h, want it to look, and rarely", i, n)
			}
		}
	})
}

// TestWhereTheMeshWasHeard is looked at by a node's own profile on that channel: of Wi-Fi,
// or of HaLow by what a channel of 5 GHz stands for there.
func TestWhereTheMeshWasHeard(t *testing.T) {
	own := func(channel int, s1g ...int) model.RadioNetwork {
		return model.RadioNetwork{Own: true, Channel: channel, S1G: s1g}
	}
	type place struct{ channel, halow, width int }
	for name, tc := range map[string]struct {
		halow int // the node's
		radio string
		heard []model.RadioNetwork
		want  []place
	}{
		"Wi-Fi":                      {44, "phy0", []model.RadioNetwork{own(6), own(1), own(6), own(14)}, []place{{6, 44, 40}, {14, 44, 20}}},
		"HaLow":                      {44, "phy2", []model.RadioNetwork{own(112, 28)}, []place{{1, 28, 40}}},
		"HaLow, one of two":          {44, "phy2", []model.RadioNetwork{own(149, 37, 40)}, []place{{1, 37, 40}, {1, 40, 40}}},
		"HaLow, perhaps here":        {44, "phy2", []model.RadioNetwork{own(161, 44, 43)}, nil},
		"HaLow, none that there is":  {44, "phy2", []model.RadioNetwork{own(149)}, nil},
		"HaLow, of which we have no": {0, "phy2", []model.RadioNetwork{own(112, 28)}, nil},
		"another's":                  {44, "phy2", []model.RadioNetwork{{Channel: 112, S1G: []int{28}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(bareCore(t, identity.New().Public(), identity.New()))
			m := bundle.Mesh{SSID: "M", PSK: "correct horse battery", Routing: "BATMAN_IV", Channel: 1, Width: 40, HaLowChannel: tc.halow}.WithDefaults()
			p := n.profiles
			p.m = change.NewNode(change.Timing{}, m, profile.Opened{}, nil, time.Now())
			u := &crowded{began: time.Now(), scans: map[string][]time.Duration{}, heard: map[string][]model.RadioNetwork{tc.radio: tc.heard}}
			n.under = u
			p.listenOnce(t.Context(), map[string]bool{})
			var got []place
			for _, k := range p.m.Known() {
				if k != m {
					got = append(got, place{k.Channel, k.HaLowChannel, k.Width})
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("it is to look at %v, want %v", got, tc.want)
			}
		})
	}
}
