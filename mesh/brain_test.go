package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/dns"
	"halo.internal/model"
	"halo.internal/model/paths"
)

func TestNamesOfNeurons(t *testing.T) {
	network, a, b, stranger := identity.New(), identity.New(), identity.New(), identity.New()
	g := bareGateway(t, network, a, b)
	g.known.Peers[0].Name, g.known.Peers[1].Name = "mast", "brain-send-n01" // a device may not take a component's name
	if g.neurons != nil {
		t.Error("told before gateway-api has said anything")
	}
	if err := g.PutNames([]model.BrainName{
		{Name: "brain-sensor-n01", Nodes: []string{b.ID(), a.ID()}},
		{Name: "brain-send-n01", Nodes: []string{network.ID(), stranger.ID()}},
		{Name: "brain-memory-n01", Nodes: []string{stranger.ID()}},
		{Name: "brain-thought-n01"},
	}); err != nil {
		t.Fatal(err)
	}
	at := func(k identity.Key, v4 string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr(v4), identity.Overlay(network.Public(), k.Public())}
	}
	gateway := at(network, "10.42.0.1")
	want := []dns.Host{
		{Name: "gateway", Addresses: gateway},
		{Name: "mast", Addresses: at(a, "10.42.1.2")},
		{Name: "brain-sensor-n01", Addresses: append(at(b, "10.42.1.3"), at(a, "10.42.1.2")...)},
		{Name: "brain-send-n01", Addresses: gateway},
	}
	check := func(want []dns.Host) {
		t.Helper()
		got := slices.DeleteFunc(g.serves().Hosts, func(h dns.Host) bool { return h.Name == dns.Label(g.name()) && h.Name != gatewayName })
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	check(want)
	// Who was revoked is nobody's component from that moment on.
	g.known.Revoked = []string{b.ID()}
	want[2].Addresses = at(a, "10.42.1.2")
	check(want)
	if err := g.PutNames([]model.BrainName{}); err != nil || g.neurons == nil {
		t.Errorf("no names at all: %v, which is told too", err)
	}
	check(want[:2])
}

func TestANameLeadsToAsManyDevicesAsFitAnAnswer(t *testing.T) {
	network := identity.New()
	var nodes []identity.Key
	n := model.BrainName{Name: "brain-sensor-all"}
	for range maxDevices + 5 {
		k := identity.New()
		nodes, n.Nodes = append(nodes, k), append(n.Nodes, k.ID())
	}
	g := bareGateway(t, network, nodes...)
	if err := g.PutNames([]model.BrainName{n}); err != nil {
		t.Fatal(err)
	}
	hosts := g.serves().Hosts
	if h := hosts[len(hosts)-1]; h.Name != n.Name || len(h.Addresses) != 2*maxDevices {
		t.Errorf("%s has %d addresses, want %d", h.Name, len(h.Addresses), 2*maxDevices)
	}
	s := dns.New(dns.Config{ULA: netip.PrefixFrom(identity.Overlay(g.net, g.net), 48).Masked()})
	if err := s.Set(hosts); err != nil {
		t.Error(err)
	}
}

func TestNamesAreChecked(t *testing.T) {
	network, a := identity.New(), identity.New()
	g := bareGateway(t, network, a)
	good := []model.BrainName{{Name: "brain-sensor-n01", Nodes: []string{a.ID()}}}
	if err := g.PutNames(good); err != nil {
		t.Fatal(err)
	}
	many := make([]model.BrainName, maxBrainNames+1)
	for i := range many {
		many[i].Name = fmt.Sprintf("brain-sensor-n%d", i)
	}
	if err := checkNames(many[1:]); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	for what, list := range map[string][]model.BrainName{
		"a device's name":    {{Name: "mast", Nodes: []string{a.ID()}}},
		"another component":  {{Name: "brain-camera-n01"}},
		"a name with a dot":  {{Name: "brain-sensor-n01.halo"}},
		"no name":            {{}},
		"twice":              {good[0], good[0]},
		"not canonical":      {{Name: "brain-sensor-n01", Nodes: []string{"mast"}}},
		"too many":           many,
		"too many nodes":     {{Name: "brain-sensor-n01", Nodes: slices.Repeat([]string{a.ID()}, model.MaxParts+1)}},
		"a very long string": {{Name: strings.Repeat("x", 1<<20)}},
	} {
		if err := g.PutNames(list); !errors.Is(err, api.ErrInvalid) || len(err.Error()) > 500 {
			t.Errorf("%s: got %.600v, want a short ErrInvalid", what, err)
		}
	}
	if len(g.neurons) != 1 {
		t.Errorf("a list that was refused left %v", g.neurons)
	}
	n := newNode(bareCore(t, network.Public(), a))
	if err := n.PutNames(good); !errors.Is(err, api.ErrRole) {
		t.Errorf("on a node: %v", err)
	}
	if h := n.serves().Hosts; len(h) != 1 || h[0].Addresses[0] != paths.OverlayGateway {
		t.Errorf("a node's own table: %v", h)
	}
}
