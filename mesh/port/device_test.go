package port

import (
	"context"
	"fmt"
	"log/slog"
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
	"halo.internal/mesh/port/sak"
	"halo.internal/model"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen; a loaded machine
// takes its time.
const patience = 2 * time.Minute

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

	kernel kernel // of the device: whether it has MACsec is not left to the host
	hurry  func(*timing)
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

func (c *carrier) Rate(iface string, _ float64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held[iface] {
		return fmt.Errorf("%s is not in the mesh", iface)
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
		t: t, carrier: &carrier{held: map[string]bool{}, log: make(chan string, 99), kernel: noMACsec{}, hurry: func(*timing) {}},
		events: make(chan model.Event, 999), ended: make(chan struct{}),
	}
	c := Config{
		Key: key(k), Network: key(99).Public(), PSK: "a mesh for tests", Carrier: d.carrier,
		Notify: func(e model.Event) { d.events <- e },
		Log:    slog.New(slog.DiscardHandler),

		Physical: func(l netlink.Link) bool { return slices.Contains(ifaces, l.Attrs().Name) },
	}
	for _, o := range options {
		o(&c)
	}
	ps, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ps.kernel = d.carrier.kernel
	ps.timing = timing{
		proof: proof.Timing{
			Search: 100 * time.Millisecond, Hello: 500 * time.Millisecond, Alive: 400 * time.Millisecond,
			Lost: 4 * time.Second, Resend: 50 * time.Millisecond, Hold: 500 * time.Millisecond,
		},
		leave: 500 * time.Millisecond, retry: 100 * time.Millisecond, carrier: 200 * time.Millisecond, settle: 10 * time.Millisecond,
		client: 300 * time.Millisecond, loyal: time.Hour, proved: 100 * time.Millisecond, lasting: time.Hour, forget: 2 * time.Hour, stray: 500 * time.Millisecond, silent: 2 * time.Second,
		idle: 300 * time.Millisecond, poll: 100 * time.Millisecond,
		keys: sak.Timing{Resend: 50 * time.Millisecond, Hurry: 500 * time.Millisecond, Grace: 100 * time.Millisecond},
	}
	d.carrier.hurry(&ps.timing)
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

// hurried has a device in another hurry.
func hurried(f func(*timing)) option {
	return func(c *Config) { c.Carrier.(*carrier).hurry = f }
}

// admitted tells whether a batman frame from that source reaches the inner side
// of iface's filter, sent from the interface at the cable's other end.
func admitted(t *testing.T, iface, from string, source net.HardwareAddr, mark string) bool {
	t.Helper()
	return admittedAs(t, paths.EtherTypeBatman, iface, from, source, mark)
}

// admittedAs is admitted for frames of any kind.
func admittedAs(t *testing.T, kind uint16, iface, from string, source net.HardwareAddr, mark string) bool {
	t.Helper()
	open := func(name string, kind int) *packet.Conn {
		a := nstest.Link(t, name).Attrs()
		c, err := packet.Listen(&net.Interface{Index: a.Index, Name: a.Name}, packet.Raw, kind, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	in, out := open(iface, int(kind)), open(from, 0x88cd)
	defer in.Close()
	defer out.Close()
	b := slices.Concat(proof.Broadcast[:], source, []byte{byte(kind >> 8), byte(kind)}, []byte(mark))
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
