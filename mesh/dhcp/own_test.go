package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	gateway "halo.internal/mesh/dhcp/server"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// TestAddressInTheMesh lets a node's client and the gateway's server meet.
func TestAddressInTheMesh(t *testing.T) {
	// The server's address is on no interface, or both ends of the cable being here,
	// what goes to it would not go over the cable.
	near, far := nstest.Cable(t, "up0", "far0")
	own := paths.UnderlayGateway
	if err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: near.Attrs().Index, IP: own.AsSlice(), HardwareAddr: far.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}); err != nil {
		t.Fatal(err)
	}
	s, err := gateway.New(gateway.Config{
		Iface: "far0", Address: netip.PrefixFrom(own, 16), First: netip.MustParseAddr("10.41.1.0"), Last: netip.MustParseAddr("10.41.1.255"),
		Lease: time.Hour, Options: gateway.Options{Router: own, DNS: []netip.Addr{own}},
		File: filepath.Join(t.TempDir(), "leases"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	u := newUplink(t, nil)
	if u.Client, err = New(Config{Own: paths.UnderlayNet, Hostname: "node1", Resolv: u.resolv, Notify: func(e model.Event) { u.events <- e }, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	u.run()
	a := u.await(EventAddressUp).Fields["address"]
	if !strings.HasPrefix(a, "10.41.1.") || !strings.HasSuffix(a, "/16") {
		t.Errorf("expected an address of the pool, got %s", a)
	}
	wantConfigured(t, []string{a}, []string{"10.41.0.0/16"})
	u.wantResolv("")
	if l := s.Leases(); len(l) != 1 || l[0].Name != "node1" || l[0].Address.String()+"/16" != a {
		t.Errorf("expected the node's lease, got %+v", l)
	}
	u.cancel()
	if err := u.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	u.await(EventAddressDown)
	for limit := time.After(patience); ; {
		l, changed := s.Watch()
		if len(l) == 0 {
			break
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("expected the lease given back, got %+v; ignored: %v", l, s.Ignored())
		}
	}
}
