package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port/proof"
	"halo.internal/model"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen; a loaded machine
// takes its time.
const patience = 30 * time.Second

func key(n byte) identity.Key {
	k, err := identity.FromSeed(slices.Repeat([]byte{n}, 32))
	if err != nil {
		panic(err)
	}
	return k
}

// device is one device under test, on some interfaces of the namespace.
type device struct {
	*Ports
	t       *testing.T
	carrier *carrier
	events  chan model.Event
	cancel  context.CancelFunc
	ended   chan struct{}
}

// carrier stands for batman-adv, which not every kernel has.
type carrier struct {
	mu   sync.Mutex
	held map[string]bool
	fail error
	log  chan string
}

func (c *carrier) Enslave(iface string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	if !c.held[iface] {
		c.held[iface] = true
		c.log <- "enslave " + iface
	}
	return nil
}

func (c *carrier) Release(iface string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[iface] {
		delete(c.held, iface)
		c.log <- "release " + iface
	}
	return nil
}

// upstream stands for a DHCP client: it finds what the test lets it find.
type upstream struct {
	answer chan struct{} // closed or sent to: Discover succeeds
	runs   chan string   // an uplink is run
	lost   chan error    // ends the run
	ended  chan error    // a run ended by its context, and its cause
}

func newUpstream() *upstream {
	return &upstream{make(chan struct{}), make(chan string, 9), make(chan error), make(chan error, 9)}
}

func (u *upstream) Discover(ctx context.Context, _ string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-u.answer:
		return nil
	}
}

func (u *upstream) Run(ctx context.Context, iface string) error {
	u.runs <- iface
	select {
	case <-ctx.Done():
		u.ended <- context.Cause(ctx)
		return nil
	case err := <-u.lost:
		return err
	}
}

type option func(*Config)

func start(t *testing.T, k byte, ifaces []string, options ...option) *device {
	t.Helper()
	d := &device{
		t: t, carrier: &carrier{held: map[string]bool{}, log: make(chan string, 99)},
		events: make(chan model.Event, 999), ended: make(chan struct{}),
	}
	c := Config{
		Key: key(k), Network: key(99).Public(), PSK: "a mesh for tests", Carrier: d.carrier,
		Notify: func(e model.Event) { d.events <- e },
		Log:    slog.New(slog.DiscardHandler),
	}
	for _, o := range options {
		o(&c)
	}
	ps, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ps.physical = func(l netlink.Link) bool { return slices.Contains(ifaces, l.Attrs().Name) }
	ps.timing = timing{
		proof: proof.Timing{
			Search: 100 * time.Millisecond, Hello: 500 * time.Millisecond, Alive: 400 * time.Millisecond,
			Lost: 4 * time.Second, Resend: 50 * time.Millisecond, Hold: 500 * time.Millisecond,
		},
		leave: 500 * time.Millisecond, retry: 100 * time.Millisecond, carrier: 200 * time.Millisecond, settle: 10 * time.Millisecond,
	}
	d.Ports = ps
	ctx, cancel := context.WithCancel(t.Context())
	d.cancel = cancel
	go func() {
		defer close(d.ended)
		if err := ps.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(d.stop)
	return d
}

func (d *device) stop() {
	d.cancel()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Error("Run did not end")
	}
}

// await returns the next event of that kind, passing over others.
func (d *device) await(kind string, fields ...string) model.Event {
	d.t.Helper()
	var seen []string
	limit := time.After(patience)
next:
	for {
		select {
		case e := <-d.events:
			seen = append(seen, e.Kind+" "+e.Message)
			if e.Kind != kind {
				continue
			}
			for i := 0; i < len(fields); i += 2 {
				if e.Fields[fields[i]] != fields[i+1] {
					continue next
				}
			}
			return e
		case <-limit:
			d.t.Fatalf("no event %s %v; seen:\n%s\nports: %+v", kind, fields, strings.Join(seen, "\n"), d.List())
		}
	}
}

func expect[T comparable](t *testing.T, from <-chan T, want T) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Fatalf("expected %v, got %v", want, got)
		}
	case <-time.After(patience):
		t.Fatalf("expected %v, nothing came", want)
	}
}

// eventually waits for a state that no event tells of.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("expected %s", what)
		}
	}
}

func pin(iface, role string) option {
	return func(c *Config) { c.Pins = map[string]string{iface: role} }
}

func gateway(u *upstream) option {
	return func(c *Config) { c.Gateway, c.Upstream = true, u }
}

// admitted tells whether a batman frame from that source reaches the inner side
// of iface's filter, sent from the interface at the cable's other end.
func admitted(t *testing.T, iface, from string, source net.HardwareAddr, mark string) bool {
	t.Helper()
	open := func(name string, kind int) *packet.Conn {
		a := nstest.Link(t, name).Attrs()
		c, err := packet.Listen(&net.Interface{Index: a.Index, Name: a.Name}, packet.Raw, kind, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	in, out := open(iface, paths.EtherTypeBatman), open(from, 0x88cd)
	defer in.Close()
	defer out.Close()
	b := slices.Concat(proof.Broadcast[:], source, []byte{0x43, 0x05}, []byte(mark))
	if _, err := out.WriteTo(b, &packet.Addr{HardwareAddr: proof.Broadcast[:]}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	if err := in.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		n, _, err := in.ReadFrom(buf)
		if err != nil {
			return false
		}
		if strings.HasPrefix(string(buf[14:n]), mark) {
			return true
		}
	}
}

func TestTwoMembers(t *testing.T) {
	la, lb := nstest.Cable(t, "a0", "b0")
	a, b := start(t, 1, []string{"a0"}), start(t, 2, []string{"b0"}, pin("b0", Mesh))
	a.await(EventProven, "peer", key(2).ID(), "iface", "a0")
	b.await(EventProven, "peer", key(1).ID(), "iface", "b0")
	expect(t, a.carrier.log, "enslave a0")
	expect(t, b.carrier.log, "enslave b0")
	a.await(EventRole, "role", Mesh, "was", Searching)
	b.await(EventRole, "role", Mesh)
	want := []model.Port{{Iface: "b0", Role: Mesh, Pinned: true, Members: []string{key(1).ID()}}}
	if got := b.List(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ports: expected %+v, got %+v", want, got)
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

// hub makes n cables whose far ends meet; it returns the near ends' names.
func hub(t *testing.T, n int) (ports []string) {
	t.Helper()
	var far []netlink.Link
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		_, f := nstest.Cable(t, name, "far-"+name)
		ports, far = append(ports, name), append(far, f)
	}
	nstest.Hub(t, "hub", far...)
	return ports
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

func TestRestartOfAMember(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	a, b := start(t, 1, []string{"a0"}), start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh)
	b.await(EventRole, "role", Mesh)
	b.stop()
	b = start(t, 2, []string{"b0"})
	b.await(EventProven, "peer", key(1).ID())
	for quiet := false; !quiet; {
		select {
		case e := <-a.events:
			if e.Kind == EventLost {
				t.Errorf("a restart within the limit: expected nobody lost, got %s", e.Message)
			}
		default:
			quiet = true
		}
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
	a.await(EventProven)
	mu.Lock()
	verdict = errors.New("revoked")
	mu.Unlock()
	a.Recheck()
	a.await(EventLost, "peer", key(2).ID())
	a.await(EventRefused, "peer", key(2).ID())
	expect(t, a.carrier.log, "enslave a0")
	expect(t, a.carrier.log, "release a0")
}

func TestUplinkIsFound(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	a := start(t, 1, []string{"a0"}, gateway(u))
	a.await(EventFound)
	if role := a.List()[0].Role; role != Searching {
		t.Errorf("before a server answers: expected %s, got %s", Searching, role)
	}
	u.answer <- struct{}{}
	a.await(EventRole, "role", Uplink)
	expect(t, u.runs, "a0")
	if !admitted(t, "a0", "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "open") {
		t.Error("an uplink is the firewall's to filter, but the port did")
	}
	u.lost <- errors.New("the lease ended")
	a.await(EventRole, "role", Searching)
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh)
	select {
	case u.answer <- struct{}{}:
		t.Error("the port carries the mesh and still looks for servers")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestNodesDoNotLookForUplinks(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	close(u.answer)
	a := start(t, 1, []string{"a0"}, func(c *Config) { c.Upstream = u })
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	if len(u.runs) != 0 {
		t.Error("a node's port became uplink")
	}
}

func TestUplinkLosesItsCable(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned %t", pinned), func(t *testing.T) {
			_, lb := nstest.Cable(t, "a0", "b0")
			u := newUpstream()
			close(u.answer)
			options := []option{gateway(u)}
			if pinned {
				options = append(options, pin("a0", Uplink))
			}
			start(t, 1, []string{"a0"}, options...)
			expect(t, u.runs, "a0")
			if err := netlink.LinkSetDown(lb); err != nil {
				t.Fatal(err)
			}
			expect(t, u.ended, errUnplugged)
			if err := netlink.LinkSetUp(lb); err != nil {
				t.Fatal(err)
			}
			expect(t, u.runs, "a0")
		})
	}
}

func TestPins(t *testing.T) {
	t.Run("unused", func(t *testing.T) {
		nstest.Cable(t, "a0", "b0")
		a := start(t, 1, []string{"a0"}, pin("a0", Unused))
		a.await(EventRole, "role", Unused)
		if nstest.Link(t, "a0").Attrs().Flags&net.FlagUp != 0 {
			t.Error("expected the port down")
		}
	})
	t.Run("client", func(t *testing.T) {
		nstest.Cable(t, "a0", "b0")
		a := start(t, 1, []string{"a0"}, pin("a0", Client))
		a.await(EventRole, "role", Client)
		if !admitted(t, "a0", "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "open") {
			t.Error("expected a client port open")
		}
	})
	t.Run("unknown", func(t *testing.T) {
		_, err := New(Config{Pins: map[string]string{"eth0": "wan"}})
		if err == nil || !strings.Contains(err.Error(), `got "wan"`) {
			t.Errorf("expected an error that names the value, got %v", err)
		}
	})
	t.Run("uplink where none can be", func(t *testing.T) {
		if _, err := New(Config{Pins: map[string]string{"eth0": Uplink}}); err == nil {
			t.Error("expected an error")
		}
	})
}

// An earlier run of halo-mesh left the port in the mesh.
func TestAdoption(t *testing.T) {
	la, lb := nstest.Cable(t, "a0", "b0")
	nstest.Hub(t, "bat", la)
	adopt := func(c *Config) { c.Carrier.(*carrier).held["a0"] = true }
	a := start(t, 1, []string{"a0"}, adopt)
	a.await(EventRole, "role", Mesh, "was", Searching)
	if admitted(t, "a0", "b0", lb.Attrs().HardwareAddr, "unproven") {
		t.Error("a batman frame came in before anyone proved itself")
	}
	if err := netlink.LinkSetNoMaster(la); err != nil { // what releasing does
		t.Fatal(err)
	}
	expect(t, a.carrier.log, "release a0")
}

func TestForeignMaster(t *testing.T) {
	la, _ := nstest.Cable(t, "a0", "b0")
	nstest.Hub(t, "br", la)
	a := start(t, 1, []string{"a0"}, func(c *Config) { c.Carrier.(*carrier).fail = errors.New("belongs to br") })
	e := a.await(EventFailed)
	if !strings.Contains(e.Message, "belongs to br") || e.Severity != model.Error {
		t.Errorf("expected the reason in the event, got %+v", e)
	}
	if got := a.List()[0]; got.Role != Searching || !strings.Contains(got.Detail, "belongs to br") {
		t.Errorf("expected the reason in the status, got %+v", got)
	}
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
