package port

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port/macsec"
	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// noMACsec is a kernel without it.
type noMACsec struct{}

func (noMACsec) Open(netlink.Link, string, proof.MAC) (secured, error) {
	return nil, fmt.Errorf("no such kind: %w", fs.ErrNotExist)
}
func (noMACsec) Remove(string) error       { return nil }
func (noMACsec) Left(string) (bool, error) { return false, nil }

// fakeMACsec stands for the kernel's, which not every host has: interfaces above
// ports that keep what they are told and carry nothing.
type fakeMACsec struct {
	t  *testing.T
	mu sync.Mutex // guards what follows
	up map[string]*fakeSecured
}

// fakeSecured is one interface; processes come and go, it stays.
type fakeSecured struct {
	k        *fakeMACsec
	name     string
	address  proof.MAC
	state    sak.State
	syncs    int
	next     uint32
	counters macsec.Counters
	fail     error // of Read
}

func newFakeMACsec(t *testing.T) *fakeMACsec {
	return &fakeMACsec{t: t, up: map[string]*fakeSecured{}}
}

func (k *fakeMACsec) Open(_ netlink.Link, name string, address proof.MAC) (secured, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.up[name]; s != nil {
		return s, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, address[:]
	if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil {
		// A host without dummies has bridges.
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, err
		}
	}
	k.t.Cleanup(func() { _ = k.Remove(name) }) // it may be gone
	k.up[name] = &fakeSecured{k: k, name: name, address: address, next: 1}
	return k.up[name], nil
}

func (k *fakeMACsec) Remove(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.up[name] == nil {
		return nil
	}
	delete(k.up, name)
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

func (k *fakeMACsec) Left(name string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.up[name] != nil, nil
}

func (s *fakeSecured) Sync(state sak.State) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if state.Transmit.Key != s.state.Transmit.Key {
		s.next = 1
	}
	s.state = state
	s.syncs++
	return nil
}

func (s *fakeSecured) Read(sak.Association) (macsec.Counters, uint32, error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.counters, s.next, s.fail
}

func (s *fakeSecured) Close() error { return nil }

// have returns what the interface was told last.
func (k *fakeMACsec) have(name string) (sak.State, proof.MAC) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.up[name]; s != nil {
		return s.state, s.address
	}
	return sak.State{}, proof.MAC{}
}

func (k *fakeMACsec) change(name string, f func(*fakeSecured)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k.up[name])
}

func with(k kernel) option { return func(c *Config) { c.Carrier.(*carrier).kernel = k } }

// hears tells whether a has the key that b sends by, in b's channel.
func hears(a, b *fakeMACsec, from, to string) bool {
	state, _ := a.have(from)
	other, address := b.have(to)
	for _, c := range state.Receive {
		if c.SCI == sak.NewSCI(address) {
			return slices.ContainsFunc(c.Associations, func(x sak.Association) bool {
				return x.AN == other.Transmit.AN && x.Key == other.Transmit.Key
			})
		}
	}
	return false
}

func TestTwoMembersWithMACsec(t *testing.T) {
	la, lb := nstest.Cable(t, "a0", "b0")
	ka, kb := newFakeMACsec(t), newFakeMACsec(t)
	a, b := start(t, 1, []string{"a0"}, with(ka)), start(t, 2, []string{"b0"}, with(kb))
	expect(t, a.carrier.log, "enslave macsec-a0")
	expect(t, b.carrier.log, "enslave macsec-b0")
	eventually(t, "keys both ways", func() bool {
		return hears(ka, kb, "macsec-a0", "macsec-b0") && hears(kb, ka, "macsec-b0", "macsec-a0")
	})
	eventually(t, "the port encrypted", func() bool { m := a.List()[0].MACsec; return m != nil && m.State == "encrypted" })
	p := a.List()[0]
	if p.Role != Mesh || p.MACsec.Iface != "macsec-a0" || len(p.MACsec.Clear)+len(p.MACsec.Waiting) != 0 || p.Detail != "" {
		t.Errorf("port: %+v, %+v", p, p.MACsec)
	}
	_, address := kb.have("macsec-b0")
	if address == proof.MAC(lb.Attrs().HardwareAddr) {
		t.Error("the MACsec interface has the port's address")
	}
	if id, ok := a.Member("macsec-a0", address[:]); !ok || id != key(2).ID() {
		t.Errorf("member at %s: expected %s, got %s, %t", address, key(2).ID(), id, ok)
	}
	if id, ok := a.Member("a0", lb.Attrs().HardwareAddr); !ok || id != key(2).ID() {
		t.Errorf("member at %s: expected %s, got %s, %t", lb.Attrs().HardwareAddr, key(2).ID(), id, ok)
	}
	if mtu := nstest.Link(t, "a0").Attrs().MTU; mtu < meshMTU+macsec.Overhead {
		t.Errorf("MTU of the port: expected at least %d, got %d", meshMTU+macsec.Overhead, mtu)
	}
	if mtu := nstest.Link(t, "macsec-a0").Attrs().MTU; mtu < meshMTU {
		t.Errorf("MTU under MACsec: expected at least %d, got %d", meshMTU, mtu)
	}
	if admitted(t, "a0", "b0", lb.Attrs().HardwareAddr, "clear") {
		t.Error("a batman frame of the member came in in the clear")
	}
	if !admittedAs(t, paths.EtherTypeMACsec, "a0", "b0", address[:], "tagged") {
		t.Error("a MACsec frame of the member did not come in")
	}
	for _, from := range []net.HardwareAddr{{2, 9, 9, 9, 9, 9}, lb.Attrs().HardwareAddr, la.Attrs().HardwareAddr} {
		if admittedAs(t, paths.EtherTypeMACsec, "a0", "b0", from, "forged") {
			t.Errorf("a MACsec frame from %s came in", from)
		}
	}
}

// Three on a switch, of which one has no MACsec: it alone is spoken to in the
// clear, and only as long as it is there.
func TestMixedSegment(t *testing.T) {
	ports := hub(t, 3)
	ka, kb := newFakeMACsec(t), newFakeMACsec(t)
	a, b := start(t, 1, ports[:1], with(ka)), start(t, 2, ports[1:2], with(kb))
	c := start(t, 3, ports[2:])
	e := a.await(EventClear, "peer", key(3).ID())
	if e.Severity != model.Warning {
		t.Errorf("an event of a member in the clear: expected a warning, got %+v", e)
	}
	c.await(EventClear)
	c.await(EventClear)
	eventually(t, "a mixed port", func() bool {
		m, o := a.List()[0].MACsec, c.List()[0].MACsec
		return m != nil && m.State == "mixed" && slices.Equal(m.Clear, []string{key(3).ID()}) && o != nil && o.State == "clear" && len(o.Clear) == 2
	})
	eventually(t, "both interfaces in the mesh", func() bool {
		return a.carrier.holds(ports[0]) && a.carrier.holds("macsec-"+ports[0]) && b.carrier.holds("macsec-"+ports[1]) && c.carrier.holds(ports[2])
	})
	if !hears(ka, kb, "macsec-"+ports[0], "macsec-"+ports[1]) {
		t.Error("the two that have MACsec do not use it")
	}
	if !admitted(t, ports[0], "hub", nstest.Link(t, ports[2]).Attrs().HardwareAddr, "without") {
		t.Error("a batman frame of the member without MACsec did not come in")
	}
	if admitted(t, ports[0], "hub", nstest.Link(t, ports[1]).Attrs().HardwareAddr, "with") {
		t.Error("a batman frame in the clear came in from a member with MACsec")
	}
	c.stop()
	a.await(EventLost, "peer", key(3).ID())
	eventually(t, "nothing in the clear to nobody", func() bool {
		return !a.carrier.holds(ports[0]) && a.carrier.holds("macsec-"+ports[0]) && a.List()[0].MACsec.State == "encrypted"
	})
}

func (c *carrier) holds(iface string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[iface]
}

func TestLostMemberHasNoKeyInUse(t *testing.T) {
	ports := hub(t, 3)
	kernels := []*fakeMACsec{newFakeMACsec(t), newFakeMACsec(t), newFakeMACsec(t)}
	var devices []*device
	var mu sync.Mutex
	var verdict error
	for i, p := range ports {
		devices = append(devices, start(t, byte(1+i), []string{p}, with(kernels[i]), func(c *Config) {
			c.Admit = func(k identity.PublicKey) error {
				mu.Lock()
				defer mu.Unlock()
				if k == key(3).Public() {
					return verdict
				}
				return nil
			}
		}))
	}
	all := func(n int) bool {
		for i := range n {
			for j := range n {
				if i != j && !hears(kernels[i], kernels[j], "macsec-"+ports[i], "macsec-"+ports[j]) {
					return false
				}
			}
		}
		return true
	}
	eventually(t, "keys among three", func() bool { return all(3) })
	before, _ := kernels[0].have("macsec-" + ports[0])
	mu.Lock()
	verdict = errors.New("revoked")
	mu.Unlock()
	devices[0].Recheck()
	devices[1].Recheck()
	devices[0].await(EventRefused, "peer", key(3).ID())
	eventually(t, "new keys between two", func() bool {
		now, _ := kernels[0].have("macsec-" + ports[0])
		return now.Transmit.Key != before.Transmit.Key && all(2) && len(now.Receive) == 1
	})
	if hears(kernels[2], kernels[0], "macsec-"+ports[2], "macsec-"+ports[0]) || hears(kernels[2], kernels[1], "macsec-"+ports[2], "macsec-"+ports[1]) {
		t.Error("who was turned away has a key in use")
	}
}

func TestRestartTakesOverMACsec(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	ka, kb := newFakeMACsec(t), newFakeMACsec(t)
	a, b := start(t, 1, []string{"a0"}, with(ka)), start(t, 2, []string{"b0"}, with(kb))
	expect(t, a.carrier.log, "enslave macsec-a0")
	expect(t, b.carrier.log, "enslave macsec-b0")
	eventually(t, "keys", func() bool {
		return hears(ka, kb, "macsec-a0", "macsec-b0") && hears(kb, ka, "macsec-b0", "macsec-a0")
	})
	b.stop()
	before, address := kb.have("macsec-b0")
	if len(before.Receive) != 1 {
		t.Fatalf("after a stop the interface has to stay as it is, got %+v", before)
	}
	start(t, 2, []string{"b0"}, with(kb))
	eventually(t, "new keys", func() bool {
		now, _ := kb.have("macsec-b0")
		return now.Transmit.Key != before.Transmit.Key && hears(ka, kb, "macsec-a0", "macsec-b0") && hears(kb, ka, "macsec-b0", "macsec-a0")
	})
	if _, now := kb.have("macsec-b0"); now != address {
		t.Errorf("address: expected %s again, got %s", address, now)
	}
}

func TestRekeyBeforeNumbersEnd(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	ka, kb := newFakeMACsec(t), newFakeMACsec(t)
	a := start(t, 1, []string{"a0"}, with(ka))
	start(t, 2, []string{"b0"}, with(kb))
	eventually(t, "keys", func() bool { return hears(kb, ka, "macsec-b0", "macsec-a0") })
	before, _ := ka.have("macsec-a0")
	ka.change("macsec-a0", func(s *fakeSecured) {
		s.next, s.counters = 1<<31, macsec.Counters{Late: 3, Invalid: 5}
	})
	eventually(t, "a new key, known to the other", func() bool {
		now, _ := ka.have("macsec-a0")
		return now.Transmit.AN == before.Transmit.AN+1 && now.Transmit.Key != before.Transmit.Key && hears(kb, ka, "macsec-b0", "macsec-a0")
	})
	if m := a.List()[0].MACsec; m.Late != 3 || m.Invalid != 5 {
		t.Errorf("counters: expected 3 late and 5 invalid, got %+v", m)
	}
	// Somebody else has changed the interface.
	again, _ := ka.have("macsec-a0")
	ka.change("macsec-a0", func(s *fakeSecured) { s.fail = macsec.ErrChanged })
	a.await(EventFailed)
	ka.change("macsec-a0", func(s *fakeSecured) { s.fail = nil })
	eventually(t, "keys made anew", func() bool {
		now, _ := ka.have("macsec-a0")
		return now.Transmit.Key != again.Transmit.Key && hears(kb, ka, "macsec-b0", "macsec-a0") && hears(ka, kb, "macsec-a0", "macsec-b0")
	})
}

func TestLastMemberLeavesMACsec(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	ka, kb := newFakeMACsec(t), newFakeMACsec(t)
	a, b := start(t, 1, []string{"a0"}, with(ka)), start(t, 2, []string{"b0"}, with(kb))
	expect(t, a.carrier.log, "enslave macsec-a0")
	b.await(EventRole, "role", Mesh)
	b.stop()
	a.await(EventLost, "peer", key(2).ID())
	expect(t, a.carrier.log, "release macsec-a0")
	a.await(EventRole, "role", Searching)
	eventually(t, "no MACsec interface without members", func() bool { _, address := ka.have("macsec-a0"); return address == proof.MAC{} })
}
