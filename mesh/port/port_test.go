package port

import (
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port/proof"
	"halo.internal/model"
)

func TestTwoMembers(t *testing.T) {
	la, lb := nstest.Cable(t, "a0", "b0")
	a, b := start(t, 1, []string{"a0"}), start(t, 2, []string{"b0"}, pin("b0", Mesh))
	a.await(EventProven, "peer", key(2).ID(), "iface", "a0")
	b.await(EventProven, "peer", key(1).ID(), "iface", "b0")
	expect(t, a.carrier.log, "enslave a0")
	expect(t, b.carrier.log, "enslave b0")
	a.await(EventRole, "role", Mesh, "was", Searching)
	b.await(EventRole, "role", Mesh)
	want := []model.Port{{
		Iface: "b0", Role: Mesh, Pinned: true, Members: []string{key(1).ID()}, Detail: "in the clear: the kernel has no MACsec",
		MACsec: &model.MACsec{State: "clear", Clear: []string{key(1).ID()}, Waiting: []string{}},
	}}
	if diff := cmp.Diff(want, b.List()); diff != "" {
		t.Errorf("ports: expected those of the first, got those of the second:\n%s", diff)
	}
	if id, ok := a.Member("a0", lb.Attrs().HardwareAddr); !ok || id != key(2).ID() {
		t.Errorf("member at %s: expected %s, got %s, %t", lb.Attrs().HardwareAddr, key(2).ID(), id, ok)
	}
	if mtu := nstest.Link(t, "a0").Attrs().MTU; mtu < meshMTU {
		t.Errorf("MTU: expected at least %d, got %d", meshMTU, mtu)
	}
	if _, ok := a.Member("a0", la.Attrs().HardwareAddr); ok {
		t.Error("the port's own address counts as a member's")
	}
	if !admitted(t, "a0", "b0", lb.Attrs().HardwareAddr, "member") {
		t.Error("a batman frame of the member did not come in")
	}
	if admitted(t, "a0", "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "stranger") {
		t.Error("a batman frame from a foreign address came in")
	}
}

func TestHubWithStranger(t *testing.T) {
	ports := hub(t, 4)
	var members []*device
	for i, p := range ports[:3] {
		members = append(members, start(t, byte(1+i), []string{p}))
	}
	stranger := start(t, 7, ports[3:], func(c *Config) { c.PSK = "another mesh" })
	for i, d := range members {
		for j := range members {
			if i != j {
				eventually(t, "all members proven to each other", func() bool {
					return slices.Contains(d.List()[0].Members, key(byte(1+j)).ID())
				})
			}
		}
	}
	time.Sleep(500 * time.Millisecond) // several of the stranger's hellos
	for i, d := range members {
		if got := d.List()[0]; len(got.Members) != 2 || got.Role != Mesh {
			t.Errorf("device %d: expected two members, got %+v", i, got)
		}
	}
	if got := stranger.List()[0]; got.Role != Searching || len(got.Members) != 0 {
		t.Errorf("stranger: expected it to search, got %+v", got)
	}
	if admitted(t, ports[0], "hub", nstest.Link(t, ports[3]).Attrs().HardwareAddr, "stranger") {
		t.Error("a batman frame of the stranger came in")
	}
}

// TestRestartOfAMember has one begin anew within the time after which it would be lost,
// which is longer than anything takes here: the other takes the new session for the
// former one's, and loses nobody before it is told to.
func TestRestartOfAMember(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	within := hurried(func(t *timing) { t.proof.Lost = 10 * patience })
	var mu sync.Mutex
	var verdict error
	sessions := 0 // of a: it is asked for each
	a := start(t, 1, []string{"a0"}, within, func(c *Config) {
		c.Admit = func(identity.PublicKey) error {
			mu.Lock()
			defer mu.Unlock()
			sessions++
			return verdict
		}
	})
	b := start(t, 2, []string{"b0"}, within)
	a.await(EventRole, "role", Mesh)
	b.await(EventRole, "role", Mesh)
	b.stop()
	mu.Lock()
	before := sessions
	mu.Unlock()
	b = start(t, 2, []string{"b0"}, within)
	b.await(EventProven, "peer", key(1).ID())
	eventually(t, "a session with the member that has begun anew", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return sessions > before
	})
	mu.Lock()
	verdict = errors.New("told to")
	mu.Unlock()
	a.Recheck()
	if e := a.await(EventLost); !strings.Contains(e.Message, verdict.Error()) {
		t.Errorf("a restart within the limit: expected nobody lost, got %s", e.Message)
	}
}

func TestLastMemberLeaves(t *testing.T) {
	_, lb := nstest.Cable(t, "a0", "b0")
	a, b := start(t, 1, []string{"a0"}), start(t, 2, []string{"b0"})
	expect(t, a.carrier.log, "enslave a0")
	b.await(EventRole, "role", Mesh)
	b.stop()
	a.await(EventLost, "peer", key(2).ID())
	expect(t, a.carrier.log, "release a0")
	a.await(EventRole, "role", Searching)
	if admitted(t, "a0", "b0", lb.Attrs().HardwareAddr, "gone") {
		t.Error("a batman frame of the lost member came in")
	}
	start(t, 2, []string{"b0"})
	expect(t, a.carrier.log, "enslave a0")
}

func TestHotPlug(t *testing.T) {
	a := start(t, 1, []string{"a0"})
	if got := a.List(); len(got) != 0 {
		t.Fatalf("expected no port, got %+v", got)
	}
	la, _ := nstest.Cable(t, "a0", "b0")
	a.await(EventFound, "iface", "a0")
	start(t, 2, []string{"b0"})
	a.await(EventProven)
	if err := netlink.LinkDel(la); err != nil {
		t.Fatal(err)
	}
	a.await(EventGone, "iface", "a0")
	if got := a.List(); len(got) != 0 {
		t.Errorf("expected no port, got %+v", got)
	}
	nstest.Cable(t, "a0", "b0")
	a.await(EventProven)
}

func TestRevoked(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	var mu sync.Mutex
	var verdict error
	a := start(t, 1, []string{"a0"}, func(c *Config) {
		c.Admit = func(identity.PublicKey) error {
			mu.Lock()
			defer mu.Unlock()
			return verdict
		}
	})
	start(t, 2, []string{"b0"})
	expect(t, a.carrier.log, "enslave a0")
	mu.Lock()
	verdict = errors.New("revoked")
	mu.Unlock()
	a.Recheck()
	a.await(EventLost, "peer", key(2).ID())
	a.await(EventRefused, "peer", key(2).ID())
	expect(t, a.carrier.log, "release a0")
}

// A stranger sends greetings that look right, thousands at once and then more
// than members ever would, while members prove themselves.
func TestFlood(t *testing.T) {
	ports := hub(t, 3)
	a := nstest.Link(t, ports[2]).Attrs()
	c, err := packet.Listen(&net.Interface{Index: a.Index, Name: a.Name}, packet.Raw, 0x88cd, nil)
	if err != nil {
		t.Fatal(err)
	}
	enough, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := slices.Concat(proof.Broadcast[:], []byte{2, 9, 9, 9, 9, 9, 0x88, 0xb5}, []byte("HALO\x01\x01"), make([]byte, 40))
		for i := 0; ; i++ {
			b[11], b[30] = byte(i), byte(i>>8)
			if _, err := c.WriteTo(b, &packet.Addr{HardwareAddr: proof.Broadcast[:]}); err != nil {
				t.Errorf("flood: %v", err)
				return
			}
			if i < 5000 || i%10 != 0 {
				continue
			}
			select {
			case <-enough:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(enough)
		<-done
		_ = c.Close()
	})
	x, y := start(t, 1, ports[:1]), start(t, 2, ports[1:2])
	x.await(EventProven)
	y.await(EventProven)
}

func TestEventsNameTheirPort(t *testing.T) {
	p := &port{name: "a0", ps: &Ports{}}
	var got model.Event
	p.ps.c.Notify = func(e model.Event) { got = e }
	fields := map[string]string{"peer": "n-x"}
	p.notify(EventLost, model.Warning, "lost", fields)
	if want := map[string]string{"iface": "a0", "peer": "n-x"}; !maps.Equal(got.Fields, want) || len(fields) != 1 {
		t.Errorf("fields: expected %v, got %v", want, got.Fields)
	}
}
