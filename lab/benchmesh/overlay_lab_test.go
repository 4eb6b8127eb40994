//go:build lab

package benchmesh_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// window is how long each transfer takes.
const window = 2 * time.Second

// BenchmarkOverlay compares what TCP carries from a node to its gateway with plain
// WireGuard between two namespaces, made by ip and wg, which have no firewall: by the
// overlay as package overlay makes it, fence and routes included, and by what
// halo-mesh makes of it, with the device's whole firewall. Under all lies a cable
// with the MTU of bat0. They take turns; ratios are those of medians.
func BenchmarkOverlay(b *testing.B) {
	w := newWorld(b)
	bare, halo, plain := w.overlay("overlay", false), w.overlay("firewalled", true), w.plain()
	all := []*tunnel{bare, halo, plain}
	for _, part := range strings.Fields(os.Getenv("HALO_BENCH_PARTS")) {
		all = append(all, w.part(part))
	}
	speeds := map[string][]float64{}
	for turn := 0; b.Loop(); turn++ {
		for i := range all {
			t := all[(turn+i)%len(all)]
			speeds[t.name] = append(speeds[t.name], t.transfer(w))
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, t := range all {
		b.Logf("%s: %.1f Mbit/s", t.name, speeds[t.name])
		b.ReportMetric(median(speeds[t.name]), t.name+"-Mbit/s")
	}
	b.ReportMetric(median(speeds[bare.name])/median(speeds[plain.name]), "ratio")
	b.ReportMetric(median(speeds[halo.name])/median(speeds[plain.name]), "ratio-firewalled")
}

// tunnel leads from a node to a gateway, which listens.
type tunnel struct {
	name          string
	gateway, node *space
	listener      net.Listener
}

// cable joins two namespaces by an interface of that name in each.
func (w *world) cable(a, b *space, name string) {
	w.t.Helper()
	w.ok(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable-a", MTU: 1500}, PeerName: "cable-b"}))
	for i, s := range []*space{a, b} {
		link, err := netlink.LinkByName([]string{"cable-a", "cable-b"}[i])
		w.ok(err)
		w.ok(netlink.LinkSetNsFd(link, int(s.ns)))
		w.ok(s.within(func() error {
			link, err := netlink.LinkByIndex(link.Attrs().Index)
			if err != nil {
				return err
			}
			return netlink.LinkSetName(link, name)
		}))
	}
}

func (w *world) tunnel(name string) *tunnel {
	t := &tunnel{name: name, gateway: w.space(), node: w.space()}
	w.t.Cleanup(func() {
		if t.listener != nil {
			t.listener.Close()
		}
		t.gateway.end()
		t.node.end()
	})
	w.cable(t.gateway, t.node, paths.BatIface)
	return t
}

// listen has the gateway swallow what comes to its overlay address.
func (t *tunnel) listen(w *world) {
	w.t.Helper()
	at := netip.AddrPortFrom(paths.OverlayGateway, paths.APIPort)
	w.ok(t.gateway.within(func() (err error) {
		t.listener, err = net.Listen("tcp4", at.String())
		return err
	}))
	go func() {
		for {
			c, err := t.listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c) // until the node closes
				_ = c.Close()
			}()
		}
	}()
	w.until(t.name+" carries", func() error { // routes and keys are there
		return t.node.within(func() error {
			c, err := net.DialTimeout("tcp4", at.String(), time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		})
	})
}

// overlay is halo-mesh's, with the firewall or without.
func (w *world) overlay(name string, firewall bool) *tunnel {
	w.t.Helper()
	t := w.tunnel(name)
	network, node := identity.New(), identity.New()
	quiet := slog.New(slog.DiscardHandler)
	for _, end := range []struct {
		space      *space
		role       model.Role
		own, other identity.Key
		v4, peerV4 netip.Addr
	}{
		{t.gateway, model.RoleGateway, network, node, paths.OverlayGateway, overlayOf(1)},
		{t.node, model.RoleNode, node, network, overlayOf(1), paths.OverlayGateway},
	} {
		public, peer := network.Public(), end.other.Public()
		root, err := os.MkdirTemp("", "halo-overlay-")
		w.ok(err)
		w.t.Cleanup(func() { os.RemoveAll(root) })
		w.ok(os.MkdirAll(filepath.Join(root, paths.Run), 0o755))
		l := lan.New(lan.Config{
			Role: end.role, Network: public, Node: end.own.Public(), Root: root,
			Notify: func(e model.Event) { w.t.Errorf("%s: %s: %s", end.role, e.Kind, e.Message) }, Log: quiet,
		})
		var dev *overlay.Device
		w.ok(end.space.within(func() (err error) {
			if firewall {
				l.Begin()
			}
			if err := mesh.AddressUnderlay(paths.BatIface, identity.Underlay(public, end.own.Public())); err != nil {
				return err
			}
			routes := []netip.Prefix{paths.ClientsNet, netip.PrefixFrom(identity.Overlay(public, public), 48).Masked()}
			allowed := []netip.Prefix{netip.PrefixFrom(end.peerV4, 32), netip.PrefixFrom(identity.Overlay(public, peer), 128)}
			if end.role == model.RoleNode {
				routes = append(routes, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
				allowed = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(identity.Overlay(public, public), 48).Masked()}
			}
			dev, err = overlay.Open(overlay.Config{
				Name: paths.OverlayIface, Key: end.own.WireGuard(), Port: paths.WireGuardPort, UnderlayMTU: 1500,
				Addresses: []netip.Prefix{netip.PrefixFrom(end.v4, paths.OverlayNet.Bits()), netip.PrefixFrom(identity.Overlay(public, end.own.Public()), 64)},
				Routes:    routes, Inner: []string{paths.ClientBridge}, Log: quiet,
			})
			if err != nil {
				return err
			}
			if !dev.Kernel() {
				return fmt.Errorf("overlay: expected the kernel's WireGuard")
			}
			return dev.SetPeers([]overlay.Peer{{
				Node: peer.ID(), Key: end.other.WireGuardPublic(), Allowed: allowed,
				Endpoint: netip.AddrPortFrom(identity.Underlay(public, peer), paths.WireGuardPort),
			}})
		}))
		w.t.Cleanup(func() { _ = dev.Close() })
	}
	t.listen(w)
	tables := []string{"halo-" + paths.OverlayIface}
	if firewall {
		tables = []string{"halo", tables[0]}
	}
	w.armed(t, tables...)
	return t
}

// armed fails unless those tables, and no others, stand at both ends.
func (w *world) armed(t *tunnel, want ...string) {
	w.t.Helper()
	for _, s := range []*space{t.gateway, t.node} {
		w.ok(s.within(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
			if err != nil {
				return err
			}
			var names []string
			for _, t := range tables {
				names = append(names, t.Name)
			}
			if slices.Sort(names); !slices.Equal(names, want) {
				return fmt.Errorf("expected the tables %v, got %v", want, names)
			}
			return nil
		}))
	}
}

// plain is WireGuard and nothing else.
func (w *world) plain() *tunnel {
	w.t.Helper()
	t := w.tunnel("plain")
	dir, err := os.MkdirTemp("", "plain-")
	w.ok(err)
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	keys := [2]identity.Key{identity.New(), identity.New()}
	for i, s := range []*space{t.gateway, t.node} {
		own, other := keys[i].WireGuard(), keys[1-i].WireGuardPublic()
		secret := filepath.Join(dir, fmt.Sprint(i))
		w.ok(os.WriteFile(secret, []byte(base64.StdEncoding.EncodeToString(own[:])), 0o600))
		w.do(s, "ip", "addr", "add", fmt.Sprintf("fd00:1::%d/64", i+1), "dev", paths.BatIface, "nodad")
		w.do(s, "ip", "link", "set", paths.BatIface, "up")
		w.do(s, "ip", "link", "add", "wg0", "mtu", "1420", "type", "wireguard")
		w.do(s, "wg", "set", "wg0", "private-key", secret, "listen-port", "51820", "peer", base64.StdEncoding.EncodeToString(other[:]),
			"allowed-ips", "10.42.0.0/16", "endpoint", fmt.Sprintf("[fd00:1::%d]:51820", 2-i))
		w.do(s, "ip", "addr", "add", []string{"10.42.0.1/16", "10.42.1.1/16"}[i], "dev", "wg0")
		w.do(s, "ip", "link", "set", "wg0", "up")
	}
	t.listen(w)
	return t
}

// part is plain WireGuard and one thing more: tracking of connections, a firewall
// that tracks them, or the fence.
func (w *world) part(name string) *tunnel {
	w.t.Helper()
	t := w.plain()
	t.name = name
	for _, s := range []*space{t.gateway, t.node} {
		w.ok(s.within(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "part"})
			for _, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookOutput} {
				chain := c.AddChain(&nftables.Chain{Name: fmt.Sprint("c", *hook), Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
				switch name {
				case "track":
					c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Counter{}}})
				case "rules":
					for range 20 {
						c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 16)}, &expr.Verdict{Kind: expr.VerdictAccept}}})
					}
				}
			}
			return c.Flush()
		}))
	}
	return t
}

// transfer returns how many Mbit/s a node sends within the window, and the gateway
// acknowledges.
func (t *tunnel) transfer(w *world) float64 {
	w.t.Helper()
	var speed float64
	w.ok(t.node.within(func() error {
		c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp4", t.listener.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		buf, sent, began := make([]byte, 64<<10), 0, time.Now()
		for time.Since(began) < window {
			n, err := c.Write(buf)
			if err != nil {
				return err
			}
			sent += n
		}
		// The end is acknowledged when all before it is.
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		if _, err := c.Read(buf[:1]); err != io.EOF {
			return fmt.Errorf("expected the gateway to close, got %v", err)
		}
		speed = float64(sent) * 8 / 1e6 / time.Since(began).Seconds()
		return nil
	}))
	return speed
}
