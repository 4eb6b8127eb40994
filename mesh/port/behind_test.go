package port

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// A board with one port, on a switch with a DHCP server and another member.
func TestMembersBehindTheUplinkAreToldAndNotMeshed(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned %t", pinned), func(t *testing.T) {
			_, lb := nstest.Cable(t, "a0", "b0")
			u := newUpstream()
			close(u.answer)
			options := []option{gateway(u)}
			if pinned {
				options = append(options, pin("a0", Uplink))
			}
			a := start(t, 1, []string{"a0"}, options...)
			expect(t, u.runs, "a0")
			b := start(t, 2, []string{"b0"})
			e := a.await(EventBehind)
			if e.Severity != model.Warning || e.Fields["mac"] != lb.Attrs().HardwareAddr.String() || !strings.Contains(e.Message, "port of its own") {
				t.Errorf("got %+v", e)
			}
			if got := a.List()[0]; got.Role != Uplink || !strings.Contains(got.Detail, "port of its own") || len(got.Members) != 0 {
				t.Errorf("status: got %+v", got)
			}
			if got := b.List()[0]; got.Role != Searching {
				t.Errorf("the member: expected that nobody answers it, got %+v", got)
			}
			b.stop()
			eventually(t, "the status to take it back", func() bool { return a.List()[0].Detail == "" })
			select {
			case line := <-a.carrier.log:
				t.Errorf("the uplink was given to the mesh: %s", line)
			default:
			}
		})
	}
}

// A member on the uplink's switch that proves itself on another port is
// reached, and so is that port itself: there is nothing to tell.
func TestMembersReachedByAnotherPortAreNotTold(t *testing.T) {
	ports := hub(t, 3)
	u := newUpstream()
	close(u.answer)
	a := start(t, 1, ports[:2], gateway(u), func(c *Config) { c.Pins = map[string]string{"p0": Uplink, "p1": Mesh} })
	expect(t, u.runs, "p0")
	b := start(t, 2, ports[2:])
	b.await(EventProven)
	a.await(EventProven, "iface", "p1")
	eventually(t, "nothing to be told of", func() bool { return a.List()[0].Detail == "" })
	_, far := nstest.Cable(t, "p3", "far-p3")
	if err := netlink.LinkSetMaster(far, nstest.Link(t, "hub")); err != nil {
		t.Fatal(err)
	}
	start(t, 1, []string{"p3"}) // a copied identity, which no port of the gateway takes for a member
	if got, want := a.await(EventBehind).Fields["mac"], nstest.Link(t, "p3").Attrs().HardwareAddr.String(); got != want {
		t.Errorf("expected only %s to be told of, got %s", want, got)
	}
}

// An uplink without a server tries again for ever; its members are told of once.
func TestMembersBehindAnUplinkThatFailsAreToldOnce(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	a := start(t, 1, []string{"a0"}, gateway(u), pin("a0", Uplink))
	start(t, 2, []string{"b0"})
	expect(t, u.runs, "a0")
	a.await(EventBehind)
	for range 3 {
		u.lost <- errors.New("no server")
		expect(t, u.runs, "a0")
		eventually(t, "the status to say it again", func() bool { return strings.Contains(a.List()[0].Detail, "port of its own") })
	}
	a.stop()
	for len(a.events) > 0 {
		if e := <-a.events; e.Kind == EventBehind {
			t.Errorf("told again: %+v", e)
		}
	}
}
