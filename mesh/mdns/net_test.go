package mdns

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// phone is a host at the far end of a cable to br0.
type phone struct {
	t     *testing.T
	ns    netns.NsHandle
	index int // of its interface
}

func newPhone(t *testing.T) *phone {
	t.Helper()
	near, far := nstest.Cable(t, "br0", "phone0")
	if err := addAddress(near, "10.43.5.1/24"); err != nil {
		t.Fatal(err)
	}
	p := &phone{t: t}
	nstest.Away(t, far, func(l netlink.Link) (err error) {
		if p.ns, err = netns.Get(); err != nil {
			return err
		}
		p.index = l.Attrs().Index
		if err := addAddress(l, "10.43.5.20/24"); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(10, 43, 5, 1)})
	})
	t.Cleanup(func() { _ = p.ns.Close() })
	return p
}

func addAddress(l netlink.Link, text string) error {
	a, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// in calls f at the phone.
func (p *phone) in(f func() error) {
	p.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := netns.Set(p.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

// dig asks the address until the answer holds what is wanted. It takes no answer
// from another address than it has asked: of the group, ask does.
func (p *phone) dig(server, q string, want string) {
	p.t.Helper()
	var out string
	for began := time.Now(); time.Since(began) < patience; {
		p.in(func() error {
			b, err := exec.Command("dig", append([]string{"-p", "5353", "@" + server, "+tries=1", "+time=2", "+norecurse"}, strings.Fields(q)...)...).CombinedOutput()
			out = strings.Join(strings.Fields(string(b)), " ")
			if _, exited := err.(*exec.ExitError); exited {
				err = nil
			}
			return err
		})
		if strings.Contains(out, want) {
			return
		}
	}
	p.t.Fatalf("dig %s %s: expected %q, got %s", server, q, want, out)
}

// ask asks the group for the name's address as a plain resolver does, until the
// answer holds what is wanted.
func (p *phone) ask(network, group, name string, qtype uint16, want string) {
	p.t.Helper()
	var c net.PacketConn
	p.in(func() (err error) {
		c, err = net.ListenPacket(network, ":0")
		return err
	})
	defer c.Close()
	q, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	last := "nothing"
	for began := time.Now(); time.Since(began) < patience; {
		if _, err := c.WriteTo(q, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(group))); err != nil {
			last = err.Error() // its own address may still have to come
			time.Sleep(50 * time.Millisecond)
			continue
		}
		b := make([]byte, maxDatagram)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			continue
		}
		var m dns.Msg
		if err := m.Unpack(b[:n]); err != nil {
			p.t.Fatal(err)
		}
		if last = describe(&m); strings.Contains(last, want) {
			return
		}
	}
	p.t.Fatalf("%s of the group: expected %q, got %s", name, want, last)
}

// avahi is Debian's responder at the phone.
type avahi struct {
	p *phone
	c *exec.Cmd
}

func (p *phone) avahi(host string) *avahi {
	p.t.Helper()
	conf := filepath.Join(p.t.TempDir(), "avahi.conf")
	text := "[server]\nhost-name=" + host + "\nallow-interfaces=phone0\nenable-dbus=no\nuse-ipv6=no\n[publish]\npublish-workstation=no\npublish-hinfo=no\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	// Its files and its socket are at a fixed place: it gets a /run of its own.
	apart := append(nstest.Mounts(p.t), "sh", "-c",
		"mount -t tmpfs none /run && mkdir /run/avahi-daemon && exec avahi-daemon --no-drop-root --no-chroot --no-rlimits --file "+conf)
	a := &avahi{p, exec.Command(apart[0], apart[1:]...)}
	p.in(a.c.Start)
	p.t.Cleanup(a.end)
	return a
}

// end stops it as an ordered stop does: it says goodbye.
func (a *avahi) end() {
	if a.c.ProcessState == nil {
		_ = a.c.Process.Signal(os.Interrupt)
		_ = a.c.Wait()
	}
}

// resolve asks it as nss-mdns does, until the answer is the one that is wanted.
func (a *avahi) resolve(name, want string) {
	a.p.t.Helper()
	var last string
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root/run/avahi-daemon/socket", a.c.Process.Pid))
		if err != nil {
			last = err.Error()
			continue
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(c, "RESOLVE-HOSTNAME-IPV4 %s\n", name)
		last, _ = bufio.NewReader(c).ReadString('\n')
		_ = c.Close()
		if strings.Contains(last, want) {
			return
		}
	}
	a.p.t.Fatalf("avahi, %s: expected %q, got %q", name, want, last)
}

// node runs a responder on br0.
func node(t *testing.T, name string) (events chan model.Event, stop func()) {
	events = make(chan model.Event, 99)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		Run(ctx, Config{Iface: "br0", Node: name, Notify: func(e model.Event) { events <- e }, Log: slog.New(slog.DiscardHandler)})
		close(ended)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return events, stop
}

func await(t *testing.T, events chan model.Event, name, instead string) {
	t.Helper()
	for limit := time.After(patience); ; {
		select {
		case e := <-events:
			if e.Kind == EventConflict && e.Fields["name"] == name && e.Fields["new"] == instead && e.Fields["by"] == "10.43.5.20" && e.Fields["iface"] == "br0" {
				return
			}
			t.Errorf("expected a conflict about %s, got %+v", name, e)
		case <-limit:
			t.Fatalf("expected a conflict about %s", name)
		}
	}
}

func TestDig(t *testing.T) {
	p := newPhone(t)
	_, stop := node(t, "mast")
	p.dig("10.43.5.1", "halo.local A", "halo.local. 10 IN A 10.43.5.1")
	p.dig("10.43.5.1", "mast.local A", "mast.local. 10 IN A 10.43.5.1")
	p.dig("10.43.5.1", "halo.local AAAA", "IN AAAA fe80::")
	p.dig("10.43.5.1", "halo.local MX", "IN NSEC halo.local. A AAAA")
	p.ask("udp4", "224.0.0.251:5353", "halo.local.", dns.TypeA, "halo.local. 10 A 10.43.5.1")
	p.ask("udp6", fmt.Sprintf("[ff02::fb%%%d]:5353", p.index), "halo.local.", dns.TypeAAAA, "halo.local. 10 AAAA fe80::")

	// The interface is made anew, with one more address.
	if err := netlink.LinkDel(nstest.Link(t, "br0")); err != nil {
		t.Fatal(err)
	}
	p = newPhone(t)
	if err := addAddress(nstest.Link(t, "br0"), "10.43.6.1/24"); err != nil {
		t.Fatal(err)
	}
	p.ask("udp4", "224.0.0.251:5353", "halo.local.", dns.TypeA, "halo.local. 10 A 10.43.6.1")
	stop()
}

func TestAvahiAsks(t *testing.T) {
	p := newPhone(t)
	tablet := p.avahi("tablet")
	_, stop := node(t, "mast")
	tablet.resolve("halo.local", "halo.local 10.43.5.1\n")
	tablet.resolve("mast.local", "mast.local 10.43.5.1\n")
	stop()
	tablet.resolve("halo.local", "-15 ") // a timeout: it has forgotten the name after the goodbye
}

func TestAvahiHasTheNames(t *testing.T) {
	for _, test := range []struct{ has, instead string }{{"halo", ""}, {"mast", "mast-2.local."}} {
		t.Run(test.has, func(t *testing.T) {
			p := newPhone(t)
			tablet := p.avahi(test.has)
			tablet.resolve(test.has+".local", test.has+".local 10.43.5.20\n")
			events, _ := node(t, "mast")
			await(t, events, test.has+".local.", test.instead)
			other := map[string]string{"halo": "mast.local", "mast": "mast-2.local"}[test.has]
			tablet.resolve(other, other+" 10.43.5.1\n")
			tablet.resolve(test.has+".local", test.has+".local 10.43.5.20\n")
			tablet.end()
			p.dig("10.43.5.1", "halo.local A", "IN A 10.43.5.1")
		})
	}
}

func TestAvahiComesLater(t *testing.T) {
	p := newPhone(t)
	events, _ := node(t, "mast")
	p.dig("10.43.5.1", "halo.local A", "IN A 10.43.5.1")
	tablet := p.avahi("halo")
	tablet.resolve("halo-2.local", "halo-2.local 10.43.5.20\n")
	tablet.resolve("halo.local", "halo.local 10.43.5.1\n")
	if len(events) != 0 {
		t.Errorf("expected to keep the name, got %+v", <-events)
	}
}
