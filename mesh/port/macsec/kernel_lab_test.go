//go:build lab

package macsec_test

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port/macsec"
	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
)

func sync64(n byte) (s sak.State) {
	s.Transmit = sak.Association{AN: n % 4, Key: sak.Key{n, 255}, PN: 1}
	for i := range byte(64) {
		s.Receive = append(s.Receive, sak.Channel{SCI: sak.NewSCI(proof.MAC{2, 9, 0, 0, 0, i}), Associations: []sak.Association{
			{AN: n % 4, Key: sak.Key{n, i, 1}, PN: 1}, {AN: (n + 1) % 4, Key: sak.Key{n, i, 2}, PN: 5},
		}})
	}
	return s
}

// TestTheKernel has it hold as many members as a port may have, whose state is more
// than the first page of an answer, and take over what a process has left.
func TestTheKernel(t *testing.T) {
	port, _ := nstest.Cable(t, "k0", "k1")
	name, address := macsec.Name("k0", port.Attrs().Index), proof.MAC{2, 1, 2, 3, 4, 5}
	open := func() *macsec.Interface {
		t.Helper()
		i, err := macsec.Open(port, name, address)
		ok(t, err)
		t.Cleanup(func() { _ = i.Close() })
		return i
	}
	i := open()
	t.Cleanup(func() { ok(t, macsec.Remove(name)) })
	for n := range byte(5) { // all kept, replaced, all numbers used
		ok(t, i.Sync(sync64(n)))
		ok(t, i.Sync(sync64(n)))
		if _, pn, err := i.Read(sync64(n).Transmit); err != nil || pn != 1 {
			t.Fatalf("turn %d: expected the first packet number to be next, got %d, %v", n, pn, err)
		}
	}
	index := nstest.Link(t, name).Attrs().Index
	again := open()
	if now := nstest.Link(t, name).Attrs().Index; now != index {
		t.Errorf("expected the interface taken over, which was %d, got %d", index, now)
	}
	if _, _, err := again.Read(sync64(7).Transmit); !errors.Is(err, macsec.ErrChanged) {
		t.Errorf("a key that is not the one in use: expected %v, got %v", macsec.ErrChanged, err)
	}
	ok(t, again.Sync(sak.State{Transmit: sync64(7).Transmit}))
	// A key whose packet numbers are lost is not sent by again.
	ok(t, again.Sync(sak.State{Transmit: sync64(8).Transmit}))
	if err := again.Sync(sak.State{Transmit: sync64(7).Transmit}); !errors.Is(err, macsec.ErrChanged) {
		t.Errorf("sending by a key again: expected %v, got %v", macsec.ErrChanged, err)
	}
	// Another address, as after a start of the machine, or other settings: made anew.
	address[5]++
	open()
	if now := nstest.Link(t, name).Attrs(); now.Index == index || now.HardwareAddr.String() != address.String() {
		t.Errorf("expected another interface, of %s, got %d of %s", address, now.Index, now.HardwareAddr)
	}
	if left, err := macsec.Left(name); err != nil || !left {
		t.Errorf("expected an interface left, got %t, %v", left, err)
	}
	ok(t, macsec.Remove(name))
	if _, err := netlink.LinkByName(name); err == nil {
		t.Error("expected it removed")
	}
	ok(t, macsec.Remove(name))
}
