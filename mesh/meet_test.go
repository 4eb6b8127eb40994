package mesh

import (
	"math"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/nstest"
	"halo.internal/model/dot11"
)

func TestSeats(t *testing.T) {
	a, b := identity.New().Public(), identity.New().Public()
	x, y := dot11.MAC{2, 0, 0, 0, 0, 1}, dot11.MAC{2, 0, 0, 0, 0, 2} // originators
	client := func(key identity.PublicKey, turn uint8, at dot11.MAC) batman.Client {
		return batman.Client{MAC: batman.MAC(key, turn), Originator: at[:], Best: true}
	}
	way := func(at dot11.MAC, last time.Duration) batman.Originator {
		return batman.Originator{MAC: at[:], NextHop: at[:], LastSeen: last}
	}
	second := func(c batman.Client) batman.Client { c.Best = false; return c }
	for name, tc := range map[string]struct {
		clients []batman.Client
		ways    []batman.Originator
		turn    uint8 // of a
		known   bool
	}{
		"nobody":                        {nil, nil, 0, false},
		"of a former life":              {[]batman.Client{client(a, 1, x)}, []batman.Originator{way(x, 31*time.Second)}, 0, false},
		"of a former life, as well":     {[]batman.Client{client(a, 1, x), client(a, 2, y)}, []batman.Originator{way(x, 31*time.Second)}, 2, true},
		"another alone":                 {[]batman.Client{client(b, 1, y)}, []batman.Originator{way(y, 0)}, 0, false},
		"one turn":                      {[]batman.Client{client(a, 3, x)}, []batman.Originator{way(x, time.Second)}, 3, true},
		"no way yet":                    {[]batman.Client{client(a, 2, x)}, nil, 2, true},
		"started anew":                  {[]batman.Client{client(a, 1, x), client(a, 2, y)}, []batman.Originator{way(x, 9*time.Second), way(y, time.Second)}, 2, true},
		"started anew, the other order": {[]batman.Client{client(a, 2, y), client(a, 1, x)}, []batman.Originator{way(y, time.Second), way(x, 9*time.Second)}, 2, true},
		"the former has several ways":   {[]batman.Client{client(a, 1, x), client(a, 2, y)}, []batman.Originator{way(x, 30*time.Second), way(y, time.Second), way(x, 9*time.Second)}, 2, true},
		"behind another as well":        {[]batman.Client{client(a, 1, x), second(client(a, 1, y))}, []batman.Originator{way(x, 9*time.Second), way(y, 0)}, 1, true},
		"not the best":                  {[]batman.Client{second(client(a, 1, x))}, []batman.Originator{way(x, 0)}, 0, false},
		"no addresses":                  {[]batman.Client{{Best: true}, {MAC: make([]byte, 8), Best: true}}, nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			want := seat{dot11.MAC(batman.MAC(a, tc.turn)), tc.known}
			if got := seats(tc.clients, tc.ways, []Acquaintance{{a, 30 * time.Second}, {b, math.MaxInt64}})[a]; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestAcquaint has the kernel know neighbours: at once what is sure, a guess only where
// nothing is known, and again when the interface has lost them.
func TestAcquaint(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	near, _ := nstest.Cable(t, "meet0", "meet1")
	index := near.Attrs().Index
	addr := identity.Underlay(identity.New().Public(), identity.New().Public())
	first, later := dot11.MAC{2, 1, 2, 3, 4, 5}, dot11.MAC{6, 1, 2, 3, 4, 5}
	entries := func() map[netip.Addr]dot11.MAC {
		t.Helper()
		list, err := netlink.NeighList(index, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		got := map[netip.Addr]dot11.MAC{}
		for _, n := range list {
			if a, ok := netip.AddrFromSlice(n.IP); ok && n.State == netlink.NUD_PERMANENT {
				got[a] = macOf(n.HardwareAddr)
			}
		}
		return got
	}
	for _, step := range []struct {
		name  string
		with  seat
		there bool
		want  dot11.MAC // zero: none
	}{
		{"heard, and no way is known", seat{first, false}, true, dot11.MAC{}},
		{"a guess, where nothing is known", seat{first, false}, false, first},
		{"the guess, when it is heard", seat{first, false}, true, dot11.MAC{}},
		{"a guess again", seat{first, false}, false, first},
		{"what is sure takes its place", seat{later, true}, true, later},
		{"a guess does not", seat{first, false}, false, later},
		{"the same again", seat{later, true}, false, later},
		{"another start", seat{first, true}, false, first},
	} {
		if err := acquaint(index, map[netip.Addr]seat{addr: step.with}, step.there); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := entries(); got[addr] != step.want || step.want != (dot11.MAC{}) && got[linkLocal(step.want)] != step.want {
			t.Errorf("%s: got %v, want %s", step.name, got, step.want)
		}
	}
	if err := netlink.LinkSetDown(near); err != nil { // the kernel forgets them
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(near); err != nil {
		t.Fatal(err)
	}
	if err := acquaint(index, map[netip.Addr]seat{addr: {later, true}}, false); err != nil {
		t.Fatal(err)
	}
	if got := entries(); got[addr] != later {
		t.Errorf("after the interface was down: got %v", got)
	}
}

// TestLinkLocalIsTheKernels compares with the address that the kernel makes.
func TestLinkLocalIsTheKernels(t *testing.T) {
	near, _ := nstest.Cable(t, "local0", "local1")
	var list []netlink.Addr
	for deadline := time.Now().Add(time.Minute); len(list) == 0; time.Sleep(10 * time.Millisecond) { // the kernel takes its time
		var err error
		if list, err = netlink.AddrList(near, netlink.FAMILY_V6); err != nil || time.Now().After(deadline) {
			t.Fatalf("no address: %v", err)
		}
	}
	got, _ := netip.AddrFromSlice(list[0].IP)
	if want := linkLocal(macOf(near.Attrs().HardwareAddr)); got != want {
		t.Errorf("got %s, want %s", want, got)
	}
}

// slowWay is an underlay that knows a way from the n-th look on.
type slowWay struct {
	Underlay
	looks, knows int
}

func (s *slowWay) Meet([]Acquaintance, bool) (bool, error) {
	s.looks++
	return s.looks >= s.knows, nil
}

func TestAwaitWay(t *testing.T) {
	for knows, want := range map[int]time.Duration{1: 0, 5: 4 * wayEvery, 1000: wayWithin} {
		synctest.Test(t, func(t *testing.T) {
			m := &core{under: &slowWay{knows: knows}}
			began := time.Now()
			m.awaitWay(t.Context(), identity.PublicKey{})
			if took := time.Since(began); took != want {
				t.Errorf("a way from look %d on: waited %s, want %s", knows, took, want)
			}
		})
	}
}
