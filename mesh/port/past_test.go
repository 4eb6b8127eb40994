package port

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/dhcp"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// pasts is a Memory that is not kept.
type pasts struct {
	mu sync.Mutex
	m  map[string]Past
}

func (p *pasts) Past(mac string) Past {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[mac]
}

func (p *pasts) Remember(mac string, past Past) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[mac] = past
}

// remembering gives a device a memory of its port a0.
func remembering(t *testing.T, past Past) (*pasts, option) {
	t.Helper()
	p := &pasts{m: map[string]Past{nstest.Link(t, "a0").Attrs().HardwareAddr.String(): past}}
	return p, func(c *Config) { c.Memory = p }
}

// is waits until that is the past of a0.
func (p *pasts) is(t *testing.T, want Past) {
	t.Helper()
	mac := nstest.Link(t, "a0").Attrs().HardwareAddr.String()
	eventually(t, "the port to have another past", func() bool { return p.Past(mac) == want })
}

// says tells whether the status of the device's port, once there is one, has that.
func says(d *device, text string) bool {
	list := d.List()
	return len(list) == 1 && strings.Contains(list[0].Detail, text)
}

// answering is an upstream whose server always answers.
func answering() *upstream {
	u := newUpstream()
	close(u.answer)
	return u
}

// The nodes are not there yet, and somebody among them gives addresses.
func TestAServerDoesNotGetThePortOfTheMesh(t *testing.T) {
	_, far := nstest.Cable(t, "a0", "b0")
	u := answering()
	_, memory := remembering(t, Past{Mesh: true})
	a := start(t, 1, []string{"a0"}, gateway(u), clients(t), memory)
	eventually(t, "the status to say for whom it waits", func() bool { return says(a, "carried the mesh") })
	time.Sleep(3 * a.timing.client) // nothing is to happen meanwhile
	if got := a.List()[0]; got.Role != Searching || inBridge(t, "a0") || len(u.runs) != 0 {
		t.Errorf("expected it to wait for members, got %+v", got)
	}
	if admitted(t, "a0", "b0", far.Attrs().HardwareAddr, "stranger") {
		t.Error("a batman frame came in before anyone proved itself")
	}
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	expect(t, a.carrier.log, "enslave a0")
	if len(u.runs) != 0 {
		t.Error("the port was an uplink")
	}
}

// All nodes were off for a while, and a server answers before they are back.
func TestAPortThatIsDesertedDoesNotGoUpstream(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	memory, option := remembering(t, Past{})
	a := start(t, 1, []string{"a0"}, gateway(u), clients(t), option)
	b := start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh)
	memory.is(t, Past{Mesh: true})
	b.stop()
	a.await(EventRole, "role", Searching, "was", Mesh)
	// Without a server, whoever is there is a client, as soon as on any port.
	a.await(EventRole, "role", Client)
	close(u.answer)
	a.await(EventRole, "role", Searching, "was", Client)
	eventually(t, "it to leave the bridge", func() bool { return !inBridge(t, "a0") })
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	if len(u.runs) != 0 {
		t.Error("the port was an uplink")
	}
}

// Somebody has moved the cable: the port is an uplink after a time, in a longer one it
// is that at once after a start, and in the end it is nothing else.
func TestAPortOfTheMeshThatWasMoved(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := answering()
	memory, option := remembering(t, Past{Mesh: true})
	bridge := clients(t)
	hurry := func(lasting, forget time.Duration) func(*timing) {
		return func(t *timing) { t.loyal, t.lasting, t.forget = time.Second, lasting, forget }
	}
	a := start(t, 1, []string{"a0"}, gateway(u), bridge, option, hurried(hurry(time.Hour, time.Hour)))
	began := time.Now()
	a.await(EventRole, "role", Uplink, "was", Searching)
	if waited := time.Since(began); waited < time.Second/2 {
		t.Errorf("it was given away after %s", waited)
	}
	expect(t, u.runs, "a0")
	time.Sleep(3 * a.timing.proved)
	memory.is(t, Past{Mesh: true})
	a.stop()

	a = start(t, 1, []string{"a0"}, gateway(u), bridge, option, hurried(hurry(time.Second, time.Hour)))
	expect(t, u.runs, "a0")
	memory.is(t, Past{Mesh: true, Uplink: true})
	a.stop()

	start(t, 1, []string{"a0"}, gateway(u), bridge, option, hurried(func(t *timing) { t.lasting, t.forget = time.Second, 2*time.Second }))
	expect(t, u.runs, "a0") // it does not wait for an hour
	memory.is(t, Past{Uplink: true})
}

// A server got the port while all nodes were off for long, and answers still.
func TestMembersGetTheirPortBack(t *testing.T) {
	for name, past := range map[string]Past{"after a moment": {Mesh: true}, "after hours": {Mesh: true, Uplink: true}} {
		t.Run(name, func(t *testing.T) {
			_, far := nstest.Cable(t, "a0", "b0")
			u := answering()
			memory, option := remembering(t, past)
			a := start(t, 1, []string{"a0"}, gateway(u), clients(t), option, hurried(func(t *timing) { t.loyal = 2 * time.Second }))
			expect(t, u.runs, "a0")
			start(t, 2, []string{"b0"})
			if e := a.await(EventBack, "iface", "a0"); e.Severity != model.Warning {
				t.Errorf("got %+v", e)
			}
			expect(t, u.ended, errMembers)
			a.await(EventProven, "peer", key(2).ID())
			a.await(EventRole, "role", Mesh)
			expect(t, a.carrier.log, "enslave a0")
			memory.is(t, Past{Mesh: true})
			if !admitted(t, "a0", "b0", far.Attrs().HardwareAddr, "member") {
				t.Error("a batman frame of the member did not come in")
			}
		})
	}
}

// Who greets without being a member, as a recording does, gets nothing of an uplink; nor
// does a member where the mesh never was, or where the bundle says what the port is.
func TestAnUplinkStaysOne(t *testing.T) {
	refused := func(c *Config) {
		c.Admit = func(identity.PublicKey) error { return errors.New("revoked") }
	}
	for name, tc := range map[string]struct {
		past Past
		more option
	}{
		"no member":    {Past{Mesh: true, Uplink: true}, refused},
		"never meshed": {Past{Uplink: true}, func(*Config) {}},
		"pinned":       {Past{Mesh: true}, pin("a0", Uplink)},
	} {
		t.Run(name, func(t *testing.T) {
			nstest.Cable(t, "a0", "b0")
			u := answering()
			memory, option := remembering(t, tc.past)
			a := start(t, 1, []string{"a0"}, gateway(u), clients(t), option, tc.more)
			expect(t, u.runs, "a0")
			start(t, 2, []string{"b0"})
			a.await(EventBehind)
			time.Sleep(2 * time.Second) // of greetings
			if got := a.List()[0]; got.Role != Uplink || len(u.ended) != 0 {
				t.Errorf("expected the uplink, got %+v", got)
			}
			memory.is(t, tc.past)
		})
	}
}

// TestAnUplinkHearsProofsInSilence: nothing is sent upstream to all.
func TestAnUplinkHearsProofsInSilence(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := answering()
	_, option := remembering(t, Past{Mesh: true, Uplink: true})
	a := start(t, 1, []string{"a0"}, gateway(u), option)
	expect(t, u.runs, "a0")
	mac := nstest.Link(t, "b0").Attrs()
	w, err := listen(t.Context(), mac.Index, "b0", [6]byte(mac.HardwareAddr), false)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case f := <-w.in:
		t.Errorf("expected nothing, got a proof to %s", f.to)
	case <-time.After(10 * a.timing.proof.Search):
	}
}

// A site's router takes longer to start than the gateway.
func TestAnUplinkIsNotGivenToClients(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	memory, option := remembering(t, Past{})
	bridge := clients(t)
	a := start(t, 1, []string{"a0"}, gateway(u), bridge, option)
	a.await(EventRole, "role", Client) // nothing is known of it
	u.answer <- struct{}{}
	a.await(EventRole, "role", Uplink)
	memory.is(t, Past{Uplink: true})
	a.stop()

	a = start(t, 1, []string{"a0"}, gateway(u), bridge, option)
	eventually(t, "the status to say what it waits for", func() bool { return says(a, "led upstream before") })
	if !waiting(t, a) {
		t.Errorf("expected it to wait for a server, got %+v", a.List()[0])
	}
	u.answer <- struct{}{}
	a.await(EventRole, "role", Uplink, "was", Searching)
	u.lost <- errors.New("the lease ended")
	a.await(EventRole, "role", Searching, "was", Uplink)
	if !waiting(t, a) {
		t.Errorf("after its server was lost: expected it to wait for one, got %+v", a.List()[0])
	}
	// A member is one at once.
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	memory.is(t, Past{Mesh: true})
}

// waiting tells whether a port goes on searching after it would be given to clients.
func waiting(t *testing.T, a *device) bool {
	t.Helper()
	time.Sleep(5 * a.timing.client) // nothing is to happen meanwhile
	return a.List()[0].Role == Searching && !inBridge(t, "a0")
}

// Somebody has plugged a camera in where an uplink was.
func TestAnUplinkThatWasMoved(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	memory, option := remembering(t, Past{Uplink: true})
	hurry := hurried(func(t *timing) { t.loyal, t.lasting = 2*time.Second, time.Second })
	a := start(t, 1, []string{"a0"}, gateway(newUpstream()), clients(t), option, hurry)
	began := time.Now()
	a.await(EventRole, "role", Client)
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("it was given away after %s", waited)
	}
	memory.is(t, Past{})
	if got := a.List()[0]; got.Role != Client {
		t.Errorf("expected it to serve clients still, got %+v", got)
	}
}

// serveDHCP has somebody at the end of a cable give 192.0.2.50 to whoever asks.
func serveDHCP(t *testing.T, iface string) {
	t.Helper()
	own := net.IPv4(192, 0, 2, 1)
	answer := func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		} else if m.MessageType() != dhcpv4.MessageTypeDiscover {
			return
		}
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(own), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(own)),
			dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(7*24*3600),
		)
		if err != nil {
			panic(err)
		}
		_, _ = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}) // lost, as on a cable
	}
	nstest.Away(t, nstest.Link(t, iface), func(l netlink.Link) error {
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: own, Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		s, err := server4.NewServer(iface, &net.UDPAddr{Port: dhcpv4.ServerPort}, answer)
		if err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.Serve() // ends with an error when it is closed
		}()
		t.Cleanup(func() {
			_ = s.Close()
			<-ended
		})
		return nil
	})
}

// TestARogueAmongTheNodes gives leases of a week on their switch while gateway and nodes
// start all at once, and while the nodes are off for long.
func TestARogueAmongTheNodes(t *testing.T) {
	ports := hub(t, 3)
	serveDHCP(t, ports[2])
	client, err := dhcp.New(dhcp.Config{Resolv: filepath.Join(t.TempDir(), "resolv.conf"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	memory := &pasts{m: map[string]Past{nstest.Link(t, ports[0]).Attrs().HardwareAddr.String(): {Mesh: true}}}
	gateway := func(loyal time.Duration) *device {
		return start(t, 1, ports[:1], func(c *Config) { c.Gateway, c.Upstream, c.Memory = true, client, memory }, hurried(func(t *timing) { t.loyal = loyal }))
	}
	leased := func() bool {
		list, err := netlink.AddrList(nstest.Link(t, ports[0]), netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if ip, _ := netip.AddrFromSlice(a.IP.To4()); ip == netip.MustParseAddr("192.0.2.50") {
				return true
			}
		}
		return false
	}

	a := gateway(time.Hour)
	eventually(t, "the rogue to be heard", func() bool { return says(a, "server of DHCP answers") })
	b := start(t, 2, ports[1:2])
	a.await(EventRole, "role", Mesh, "was", Searching)
	b.stop()
	a.stop()

	a = gateway(2 * time.Second)
	eventually(t, "the rogue's lease, after long", leased)
	if got := a.List()[0]; got.Role != Uplink {
		t.Errorf("expected the uplink, got %+v", got)
	}
	start(t, 2, ports[1:2])
	a.await(EventBack)
	a.await(EventRole, "role", Mesh)
	if leased() {
		t.Error("the port of the mesh has the rogue's address still")
	}
}
