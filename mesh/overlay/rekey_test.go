//go:build !lab

package overlay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
)

// A fence stays when its overlay is closed: not the addresses of other tests.
var (
	rekeyA, rekeyB   = netip.MustParseAddr("10.98.0.1"), netip.MustParseAddr("10.98.1.2")
	rekeyA6, rekeyB6 = netip.MustParseAddr("fd00:98::a"), netip.MustParseAddr("fd00:98::b")
)

// TestAKeyRotatesWithoutAGap has one connection go on while first one end and then
// the other change their keys. A gap is a session that is lost, or a handshake that is
// refused, and not that it takes long: a slow host takes long for anything.
func TestAKeyRotatesWithoutAGap(t *testing.T) {
	keyA, keyB, nextA, nextB := identity.New(), identity.New(), identity.New(), identity.New()
	near, far := nstest.Cable(t, "rekey-a", "rekey-b")
	if err := underlay(near, underA); err != nil {
		t.Fatal(err)
	}
	a, err := open(t, config("wg-ra", keyA, rekeyA, rekeyA6))
	if err != nil {
		t.Fatal(err)
	}
	var b *Device
	listening := make(chan net.Listener, 1)
	nstest.Away(t, far, func(l netlink.Link) (err error) {
		if err := underlay(l, underB); err != nil {
			return err
		}
		if b, err = open(t, config("wg-rb", keyB, rekeyB, rekeyB6)); err != nil {
			return err
		}
		s, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", netip.AddrPortFrom(rekeyB, 7).String())
		listening <- s
		return err
	})
	toA, toB := peer(keyA, underA, rekeyA, rekeyA6, Incarnation{}), peer(keyB, underB, rekeyB, rekeyB6, Incarnation{})
	set := func(d *Device, p Peer) {
		t.Helper()
		if err := d.SetPeers([]Peer{p}); err != nil {
			t.Fatal(err)
		}
	}
	set(a, toB)
	set(b, toA)
	shakes := nstest.ListenShakes(t, near.Attrs().Name, paths.WireGuardPort)
	server := <-listening
	t.Cleanup(func() { server.Close() })
	go echo(server)
	conn := dialEcho(t)
	ping(t, conn)

	for name, turn := range map[string]struct {
		self, other *Device
		to          *Peer // as the other knows this end
		next        identity.Key
	}{"the server": {b, a, &toB, nextB}, "the client": {a, b, &toA, nextA}} {
		t.Run(name, func(t *testing.T) {
			shakes.Clear()
			known := *turn.to
			known.Next = turn.next.WireGuardPublic()
			set(turn.other, known)
			gap := longestGap(t, conn, func() {
				if err := turn.self.SetKey(turn.next.WireGuard()); err != nil {
					t.Fatal(err)
				}
			}, turn.other)
			t.Logf("longest gap: %s", gap)
			// The list has it as its key now.
			turn.to.Key = turn.next.WireGuardPublic()
			set(turn.other, *turn.to)
			ping(t, conn)
			if err := shakes.Once(1); err != nil {
				t.Error(err)
			}
			if s, err := turn.other.Status(); err != nil || len(s) != 1 || s[0].LastHandshake == nil || len(s[0].Addresses) != 2 {
				t.Errorf("afterwards: %+v, %v", s, err)
			}
		})
	}
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(c, c) }() // until the test is over
	}
}

func dialEcho(t *testing.T) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(rekeyB, 7).String(), 3*time.Second)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// ping has a line come back, and returns how long that took.
func ping(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	if err := c.SetDeadline(began.Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(c, "still here"); err != nil {
		t.Fatal(err)
	}
	if s, err := bufio.NewReader(c).ReadString('\n'); err != nil || s != "still here\n" {
		t.Fatalf("got %q, %v", s, err)
	}
	return time.Since(began)
}

// longestGap has lines go to and fro while the key changes, until the other end
// has moved the addresses over.
func longestGap(t *testing.T, c net.Conn, change func(), other *Device) (longest time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		var err error
		for err == nil && ctx.Err() == nil && other.Rekeying() {
			<-tick.C
			err = other.Promote()
		}
		followed <- err
	}()
	defer cancel()
	ping(t, c)
	change()
	for moved := 0; moved < 3; {
		longest = max(longest, ping(t, c))
		if !other.Rekeying() {
			moved++
		}
	}
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	return longest
}
