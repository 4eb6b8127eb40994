//go:build lab

package laptop_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"halo.internal/gateway"
	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/local"
	"halo.internal/mesh"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// What a process of this program is told by its environment.
const (
	envRole = "HALO_LAPTOP_ROLE" // of a device
	envRoot = "HALO_LAPTOP_ROOT"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		os.Exit(run(model.Role(role), os.Getenv(envRoot)))
	}
	testvm.Main(m, testvm.Options{
		// All that devices need: see the test, which has the kernel ask for nothing more.
		Modules: []string{"batman_adv", "wireguard", "bridge", "veth", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_redir", "nft_ct", "nft_limit",
			"nft_connlimit", "nft_log", "nft_reject_inet", "nft_fib_inet", "nfnetlink_log", "nf_conntrack_netlink", "nft_meta_bridge", "nft_reject_bridge"},
		Packages: []string{"iproute2", "busybox", "wireguard-tools", "bash", "openresolv"},
		MemoryMB: 1024, CPUs: 2,
	})
}

// patience is far beyond what any of this takes.
const patience = 10 * time.Minute

// Interfaces of devices besides those that halo-mesh makes.
const (
	cableIface  = "cable0" // carries the mesh
	uplinkIface = "up0"
	clientIface = "lan0" // of a node
)

// run is the process of a device: its daemons as they are on boards, but for the places
// of their files, the clock, which nobody sets, and ports that are cables of the kernel.
func run(role model.Role, root string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	at := func(p string) string { return filepath.Join(root, p) }
	if role == model.RoleGateway {
		c := gateway.Board(log)
		c.State, c.Identity, c.Socket, c.Mesh = paths.Dir(at(paths.State)), at(paths.RunIdentity), at(paths.GatewaySocket), at(paths.MeshSocket)
		go func() {
			if err := gateway.Run(ctx, c); err != nil {
				fmt.Fprintln(os.Stderr, "gateway-api:", err)
			}
		}()
	}
	err := mesh.Run(ctx, mesh.Config{
		Root: root, Role: role, BootID: "boot-1", Boot: plainBoot{}, Clock: still{},
		Console:  func() (io.WriteCloser, error) { return os.Create(at("console")) },
		Underlay: func(c mesh.UnderlayConfig) mesh.Underlay { return cabled{mesh.NewUnderlay(c), role} },
		Log:      log,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "halo-mesh:", err)
		return 1
	}
	return 0
}

type plainBoot struct{}

func (plainBoot) Writable(f func() error) error { return f() }

type still struct{}

func (still) Now() time.Time          { return time.Now() }
func (still) Set(time.Time) error     { return nil }
func (still) RTC() (time.Time, error) { return time.Time{}, errors.New("no battery-backed clock") }

// cabled is a board's underlay whose ports are cables of the kernel, which it does not
// take for hardware: it is told what they lead to.
type cabled struct {
	mesh.Underlay
	role model.Role
}

func (c cabled) Ports() []model.Port {
	own := model.Port{Iface: uplinkIface, Role: port.Uplink, Pinned: true}
	if c.role == model.RoleNode {
		own = model.Port{Iface: clientIface, Role: port.Client, Pinned: true}
	}
	return append(c.Underlay.Ports(), own)
}

// device is a board with its files and its process.
type device struct {
	*testing.T
	name string
	root string
	host *nstest.Host
	mesh *local.Mesh
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until polls what no event tells.
func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// bundles make a network: the gateway's bundle and a node's.
func bundles(t *testing.T) (gateway, node []byte) {
	t.Helper()
	key := identity.New()
	b := bundle.Bundle{
		Version: bundle.Version, Network: "valley", Role: model.RoleGateway, Country: "DE", Name: "hut",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64(), Seed: base64.StdEncoding.EncodeToString(key.Seed()), ClaimCode: claimCode},
		Mesh:    bundle.Mesh{SSID: "VALLEY-1", PSK: "a password of the lab", Routing: "BATMAN_IV"},
	}
	gateway, err := b.Marshal()
	ok(t, err)
	b.Role, b.Gateway.Seed, b.Gateway.ClaimCode, b.Name = model.RoleNode, "", "", "mast"
	b.Join.Token = identity.NewJoinToken(1, time.Now().Add(time.Hour)).Text(key)
	node, err = b.Marshal()
	ok(t, err)
	return gateway, node
}

// newDevice starts a board to which those interfaces belong.
func newDevice(t *testing.T, role model.Role, name string, b []byte, ifaces ...netlink.Link) *device {
	t.Helper()
	root, err := os.MkdirTemp("", name+"-")
	ok(t, err)
	for _, dir := range []string{paths.Boot, paths.Perm, filepath.Dir(paths.Resolv), filepath.Dir(paths.Upstreams)} {
		ok(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	ok(t, os.WriteFile(filepath.Join(root, paths.Bundle), b, 0o600))
	d := &device{t, name, root, newHost(t, ifaces...), local.NewMesh(filepath.Join(root, paths.MeshSocket))}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"="+string(role), envRoot+"="+root)
	log, err := os.Create(filepath.Join(root, "log"))
	ok(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	d.host.Do(t, cmd.Start)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have died
		_ = cmd.Wait()
		if b, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("log of %s:\n%s", name, b[max(0, len(b)-9000):])
		}
	})
	return d
}

// newHost makes a machine of which those interfaces are.
func newHost(t *testing.T, ifaces ...netlink.Link) *nstest.Host {
	t.Helper()
	h := nstest.NewHost(t, ifaces[0])
	var ns netns.NsHandle
	h.Do(t, func() (err error) {
		ns, err = netns.Get()
		return err
	})
	defer ns.Close()
	for _, l := range ifaces[1:] {
		ok(t, netlink.LinkSetNsFd(l, int(ns)))
		up(t, h, l.Attrs().Name)
	}
	up(t, h, "lo")
	return h
}

func up(t *testing.T, h *nstest.Host, iface string) {
	t.Helper()
	h.Do(t, func() error {
		l, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// address gives an interface of this namespace an address, and a way to the rest of the
// world.
func address(iface, prefix, gateway string) error {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil || gateway == "" {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
}

// office joins cables in a machine that is their router, and has a name server.
func office(t *testing.T, cables ...netlink.Link) {
	t.Helper()
	h := newHost(t, cables...)
	var at net.PacketConn
	h.Do(t, func() (err error) {
		a := netlink.NewLinkAttrs()
		a.Name = "office"
		hub := &netlink.Bridge{LinkAttrs: a}
		if err := netlink.LinkAdd(hub); err != nil {
			return err
		}
		for _, c := range cables {
			l, err := netlink.LinkByName(c.Attrs().Name)
			if err == nil {
				err = netlink.LinkSetMaster(l, hub)
			}
			if err != nil {
				return err
			}
		}
		if err := errors.Join(netlink.LinkSetUp(hub), address("office", router+"/24", "")); err != nil {
			return err
		}
		at, err = net.ListenPacket("udp4", router+":53")
		return err
	})
	s := &dns.Server{PacketConn: at, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		r.RecursionAvailable = true
		switch {
		case dns.CanonicalName(q.Question[0].Name) != dns.Fqdn(shop): // who asks mixes cases
			r.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(atShop)}}
		}
		_ = w.WriteMsg(r) // who asked asks again
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = at.Close()
		<-ended
	})
}

// enslave puts an interface of a device under another, as soon as that is there.
func (d *device) enslave(iface, under string) {
	d.Helper()
	until(d.T, under+" of "+d.name, func() error {
		var err error
		d.host.Do(d.T, func() error {
			l, e := netlink.LinkByName(iface)
			m, f := netlink.LinkByName(under)
			if err = errors.Join(e, f); err == nil {
				err = netlink.LinkSetMaster(l, m)
			}
			return nil
		})
		return err
	})
}

// membership waits until a node has joined.
func (d *device) membership() (m model.Membership) {
	d.Helper()
	until(d.T, d.name+" has joined", func() (err error) {
		m, err = d.mesh.Membership(d.Context())
		if err == nil && !m.OverlayV4.IsValid() {
			err = errors.New("it has no address in the overlay")
		}
		return err
	})
	return m
}
