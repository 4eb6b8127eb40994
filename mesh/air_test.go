package mesh

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"testing"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

func TestRefusalsOfRadiosHaveAKindAndKeepTheirWords(t *testing.T) {
	for from, to := range map[error]error{wireless.ErrNoRadio: api.ErrNone, wireless.ErrInvalid: api.ErrInvalid, radio.ErrBusy: api.ErrBusy} {
		err := fmt.Errorf("phy0: %w", from)
		if got := ofRadio(err); !errors.Is(got, to) || !errors.Is(got, from) || got.Error() != err.Error() {
			t.Errorf("%v: got %v", err, got)
		}
	}
	other := errors.New("the driver gave up")
	if got := ofRadio(other); got != other || ofRadio(nil) != nil {
		t.Errorf("got %v", got)
	}
}

func TestWhoTheGatewayIs(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	clients := []batman.Client{
		{MAC: mac(1), Originator: mac(11), Best: true}, {MAC: mac(2), Originator: mac(12)}, {MAC: mac(2), Originator: mac(13), Best: true},
		{MAC: mac(4), Originator: mac(14), Best: true},
	}
	ways := []batman.Originator{
		{MAC: mac(11), LastSeen: 90 * time.Second}, {MAC: mac(12)}, {MAC: mac(13), LastSeen: 4 * time.Second}, {MAC: mac(13), LastSeen: 2 * time.Second},
	}
	for _, tc := range []struct {
		at   []byte
		want string
	}{{[]byte{1}, mac(11).String()}, {[]byte{2}, mac(13).String()}, {[]byte{1, 2}, mac(13).String()}, {[]byte{3}, ""}, {[]byte{4}, ""}} {
		var at []net.HardwareAddr
		for _, n := range tc.at {
			at = append(at, mac(n))
		}
		if got := behind(clients, ways, at); got != tc.want {
			t.Errorf("clients %d: got %q, want %q", tc.at, got, tc.want)
		}
	}
}

func TestHopToTheGateway(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	member := func(iface string, a net.HardwareAddr) (string, bool) { return "n-proven", iface == "eth0" && a[5] == 5 }
	ways := []batman.Originator{
		{MAC: mac(1), NextHop: mac(7), Iface: "mesh0", TQ: 90},
		{MAC: mac(1), NextHop: mac(5), Iface: "eth0", TQ: 200, Best: true},
		{MAC: mac(2), NextHop: mac(2), Iface: "mesh0", Throughput: 6.5, Best: true},
		{MAC: mac(3), NextHop: mac(7), Iface: "mesh0", TQ: 90},
		{MAC: mac(4), NextHop: mac(7)[:3], Iface: "mesh0", Best: true},
	}
	for at, want := range map[string]*model.ReportNextHop{
		mac(1).String(): {Node: "n-gateway", Next: dot11.MAC(mac(5)), NextNode: "n-proven", Iface: "eth0", TQ: 200},
		mac(2).String(): {Node: "n-gateway", Next: dot11.MAC(mac(2)), NextNode: "n-gateway", Iface: "mesh0", Kbps: 6500},
		mac(3).String(): nil, // known, and no way is in use
		mac(4).String(): nil,
		mac(9).String(): nil,
		"":              nil,
	} {
		if got := hopTo(at, "n-gateway", ways, member); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", at, got, want)
		}
	}
}
