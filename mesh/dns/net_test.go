package dns

import (
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

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"halo.internal/mesh/listen"
	"halo.internal/mesh/nstest"
)

// place is a namespace of its own at the far end of a cable.
type place struct {
	t  *testing.T
	ns netns.NsHandle
}

func newPlace(t *testing.T, near, nearAddr string, farAddrs ...string) *place {
	t.Helper()
	l, far := nstest.Cable(t, near, near+"far")
	p := &place{t: t}
	nstest.Away(t, far, func(l netlink.Link) (err error) {
		if p.ns, err = netns.Get(); err != nil {
			return err
		}
		return address(l, farAddrs...)
	})
	t.Cleanup(func() { _ = p.ns.Close() })
	if err := address(l, nearAddr); err != nil {
		t.Fatal(err)
	}
	return p
}

func address(l netlink.Link, list ...string) error {
	for _, text := range list {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = 2 // nodad
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return nil
}

// in calls f in the place.
func (p *place) in(f func() error) {
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

// run returns what a program printed, whatever its exit status.
func (p *place) run(name string, args ...string) (out string) {
	p.t.Helper()
	p.in(func() error {
		b, err := exec.Command(name, args...).CombinedOutput()
		if _, exited := err.(*exec.ExitError); exited {
			err = nil
		}
		out = string(b)
		return err
	})
	return out
}

// start runs a program until the test ends.
func (p *place) start(name string, args ...string) {
	p.t.Helper()
	c := exec.Command(name, args...)
	p.in(c.Start)
	p.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

// dig asks the server at the first argument until the answer holds all that is
// wanted.
func (p *place) dig(args string, want ...string) {
	p.t.Helper()
	var out string
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		out = p.run("dig", append([]string{"+norecurse", "+recurse", "+tries=1", "+time=10"}, strings.Fields(args)...)...)
		all := true
		for _, w := range want {
			all = all && strings.Contains(strings.Join(strings.Fields(out), " "), w)
		}
		if all {
			return
		}
	}
	p.t.Fatalf("dig %s: expected %q, got:\n%s", args, want, out)
}

// TestPeers has dig, glibc and dnsmasq at both ends of a server.
func TestPeers(t *testing.T) {
	phone := newPlace(t, "br0", "10.43.5.1/24", "10.43.5.20/24", "10.99.0.1/24")
	isp := newPlace(t, "up0", "192.0.2.7/24", "192.0.2.53/24")
	if err := address(nstest.Link(t, "br0"), "fe80::5/64"); err != nil {
		t.Fatal(err)
	}
	// A way back to a source that is not allowed: only the server's own check keeps
	// it from answering.
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: nstest.Link(t, "br0").Attrs().Index, Dst: mustIPNet("10.99.0.0/24"), Scope: netlink.SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
	isp.start("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--group=root", "--pid-file=",
		"--listen-address=192.0.2.53", "--bind-interfaces", "--local=/example.com/", "--auth-ttl=2", "--local-ttl=2",
		"--host-record=www.example.com,198.51.100.1", "--host-record=evil.example.com,10.42.0.1", "--cname=web.example.com,www.example.com",
		"--txt-record=big.example.com,"+strings.Repeat(strings.Repeat("x", 200)+",", 20)+"end")

	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	s := New(Config{ULA: ula, Log: slog.New(slog.DiscardHandler), Upstream: ResolvConf(resolv)})
	if err := s.Set(hosts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	for _, at := range []listen.At{
		{Iface: "br0", Addr: netip.MustParseAddr("10.43.5.1"), From: []netip.Prefix{netip.MustParsePrefix("10.43.5.0/24")}},
		{Iface: "br0", Addr: netip.MustParseAddr("fe80::5"), From: []netip.Prefix{netip.MustParsePrefix("fe80::/64")}},
	} {
		go func() {
			s.Serve(ctx, at)
			ended <- struct{}{}
		}()
	}
	defer func() {
		cancel()
		<-ended
		<-ended
	}()

	phone.dig("@10.43.5.1 mast.halo A", "status: NOERROR", "flags: qr aa rd ra;", "mast.halo. 60 IN A 10.42.0.7")
	phone.dig("@10.43.5.1 +tcp mast.halo AAAA", "mast.halo. 60 IN AAAA fd12:3456:789a:2::7", "(TCP)")
	phone.dig("@fe80::5%br0far mast.halo A", "mast.halo. 60 IN A 10.42.0.7")
	phone.dig("@10.43.5.1 -x 10.43.7.20", "IN PTR phone.mast.halo.")
	phone.dig("@10.43.5.1 nobody.halo", "status: NXDOMAIN", "halo. 15 IN SOA gateway.halo.")
	phone.dig("@10.43.5.1 halo.local", "halo.local. 60 IN A 10.43.5.1")
	phone.dig("@10.43.5.1 +edns=1 +noednsneg mast.halo", "status: BADVERS")
	phone.dig("@10.43.5.1 chaos txt version.bind", "status: REFUSED")

	phone.dig("@10.43.5.1 early.example.com", "status: SERVFAIL", "EDE: 23 (Network Error): (no way out: no uplink has a name server)")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	phone.dig("@10.43.5.1 early.example.com", "status: NXDOMAIN")
	phone.dig("@10.43.5.1 www.example.com", "status: NOERROR", "flags: qr rd ra;", "IN A 198.51.100.1")
	phone.dig("@10.43.5.1 WEB.example.com", "WEB.example.com. ", "IN CNAME www.example.com.", "IN A 198.51.100.1")
	phone.dig("@10.43.5.1 evil.example.com", "ANSWER: 0", "EDE: 15 (Blocked)")
	phone.dig("@10.43.5.1 +ignore +bufsize=4096 big.example.com TXT", "flags: qr tc rd ra;")
	phone.dig("@10.43.5.1 big.example.com TXT", "(TCP)", `"end"`)

	conf := filepath.Join(t.TempDir(), "phone.conf")
	if err := os.WriteFile(conf, []byte("nameserver 10.43.5.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"mast.halo": "10.42.0.7 ", "www.example.com": "198.51.100.1 ", "10.43.7.20": "phone.mast.halo"} {
		apart := append(nstest.Mounts(t), "sh", "-c", "mount --bind "+conf+" /etc/resolv.conf && getent hosts "+name+" && getent ahostsv4 "+name)
		got := phone.run(apart[0], apart[1:]...)
		if !strings.Contains(got, want) {
			t.Errorf("getent %s: expected %q, got %q", name, want, got)
		}
	}

	if got := phone.run("dig", "@10.43.5.1", "-b", "10.99.0.1", "+tries=1", "+time=2", "mast.halo"); strings.Contains(got, "status:") {
		t.Errorf("a source that is not allowed got\n%s", got)
	}
	if got := phone.run("dig", "@10.43.5.1", "-b", "10.99.0.1", "+tcp", "+tries=1", "+time=2", "mast.halo"); strings.Contains(got, "status:") {
		t.Errorf("a source that is not allowed got over TCP\n%s", got)
	}

	if err := os.Remove(resolv); err != nil {
		t.Fatal(err)
	}
	phone.dig("@10.43.5.1 www.example.com", "EDE: 3 (Stale Answer)", "EDE: 23 (Network Error)", "www.example.com. 30 IN A 198.51.100.1")
}

// TestChain asks a node that asks its gateway.
func TestChain(t *testing.T) {
	asker := newPlace(t, "br0", "10.43.5.1/24", "10.43.5.20/24")
	gateway := New(Config{ULA: ula, Log: slog.New(slog.DiscardHandler), Upstream: ResolvConf(filepath.Join(t.TempDir(), "none"))})
	node := New(Config{ULA: ula, Log: slog.New(slog.DiscardHandler), Upstream: func() ([]netip.AddrPort, error) {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:53")}, nil
	}})
	go gateway.Serve(t.Context(), listen.At{Iface: "lo", Addr: netip.MustParseAddr("127.0.0.2"), From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	go node.Serve(t.Context(), listen.At{Iface: "br0", Addr: netip.MustParseAddr("10.43.5.1"), From: []netip.Prefix{netip.MustParsePrefix("10.43.5.0/24")}})
	asker.dig("@10.43.5.1 www.example.com", "status: SERVFAIL", "EDE: 23 (Network Error): (no way out: no uplink has a name server)")
}

// TestSilence has an upstream that says nothing at all.
func TestSilence(t *testing.T) {
	asker := newPlace(t, "br0", "10.43.5.1/24", "10.43.5.20/24")
	newPlace(t, "up0", "192.0.2.7/24", "192.0.2.53/24").in(func() error {
		c, err := net.ListenPacket("udp", upstream.String()) // nobody reads from it
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
	s := New(Config{ULA: ula, Log: slog.New(slog.DiscardHandler), Upstream: func() ([]netip.AddrPort, error) { return []netip.AddrPort{upstream}, nil }})
	go s.Serve(t.Context(), listen.At{Iface: "br0", Addr: netip.MustParseAddr("10.43.5.1"), From: []netip.Prefix{netip.MustParsePrefix("10.43.5.0/24")}})
	asker.dig("@10.43.5.1 www.example.com", "status: SERVFAIL", "EDE: 22 (No Reachable Authority)")
}

func mustIPNet(text string) *net.IPNet {
	n, err := netlink.ParseIPNet(text)
	if err != nil {
		panic(fmt.Sprint(text, ": ", err))
	}
	return n
}
