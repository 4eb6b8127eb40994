package firewall

import (
	"bytes"
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

func networks(own ...netip.Prefix) Networks {
	var network identity.PublicKey
	n := HALONetworks(network, own...)
	// Readable, and the same length.
	n.Underlay[1] = netip.MustParsePrefix("fd00:aa:bb:1::/64")
	n.Overlay[1] = netip.MustParsePrefix("fd00:aa:bb:2::/64")
	n.Clients[1] = netip.MustParsePrefix("fd00:aa:bb::/48")
	return n
}

func prefixes(text ...string) (list []netip.Prefix) {
	for _, s := range text {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func ports(text ...string) (list []model.PortRange) {
	for _, s := range text {
		var p model.PortRange
		if err := p.UnmarshalText([]byte(s)); err != nil {
			panic(err)
		}
		list = append(list, p)
	}
	return list
}

// nodeConfig is a node with clients.
func nodeConfig() Config {
	return Config{
		Interfaces: map[model.Zone][]string{
			model.ZoneMesh: {"bat0"}, model.ZoneClients: {"br0"}, model.ZoneOverlay: {"wg0"},
		},
		Networks:    networks(prefixes("10.43.7.0/24")...),
		Services:    Services(false, 4255),
		Forwardings: Forwardings(false),
		Guard: Guard{
			Ports: []string{"eth1", "wlan1"},
			Own:   []netip.Addr{netip.MustParseAddr("10.43.7.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fd00:aa:bb:7::1")},
		},
	}
}

// gatewayConfig is a gateway with all that can be configured.
func gatewayConfig() Config {
	c := Config{
		Gateway: true, Upstream6: true,
		Interfaces: map[model.Zone][]string{
			model.ZoneUplink: {"eth0", "usb0"}, model.ZoneMesh: {"bat0"}, model.ZoneClients: {"br0"}, model.ZoneOverlay: {"wg0"},
		},
		Networks:    networks(prefixes("10.43.0.0/24", "fd00:aa:bb:100::/64")...),
		Services:    Services(true, 4255),
		Forwardings: Forwardings(true),
		Rules: []model.FirewallRule{
			{Name: "no-mail", Action: model.Deny, From: model.ZoneClients, To: model.ZoneUplink, Proto: "tcp", Ports: ports("25", "465-587")},
			{Name: "camera", Action: model.Allow, From: model.ZoneMesh, To: model.ZoneClients, Proto: "udp", Ports: ports("5000-5010"), Sources: prefixes("10.41.3.0/24", "fd00:aa:bb:1::7/128")},
			{Name: "office", Action: model.Allow, From: model.ZoneUplink, To: model.ZoneLocal, Sources: prefixes("192.0.2.0/24")},
			{Name: "no-ping", Action: model.Deny, From: model.ZoneMesh, To: model.ZoneLocal, Proto: "icmp"},
		},
		Ports: []model.PortForward{
			{Name: "web", Proto: "tcp", Port: model.SinglePort(8081), To: netip.MustParseAddr("10.43.0.10"), ToPort: 80},
			{Name: "voice", Proto: "udp", Port: model.PortRange{First: 6000, Last: 6009}, To: netip.MustParseAddr("10.42.0.9"), Sources: prefixes("198.51.100.0/24", "203.0.113.7/32")},
			{Name: "web6", Proto: "tcp", Port: model.SinglePort(8081), To: netip.MustParseAddr("fd00:aa:bb:100::10"), ToPort: 80},
		},
	}
	c.Services = append(c.Services, model.Service{Name: "api-tls", Proto: "tcp", Ports: ports("8443"), Zones: []model.Zone{model.ZoneUplink}})
	return c
}

// guestsConfig is a node with guests and no clients.
func guestsConfig() Config {
	c := nodeConfig()
	c.Interfaces = map[model.Zone][]string{model.ZoneMesh: {"br-mesh"}, model.ZoneClients: {"br0"}, model.ZoneOverlay: {"wg0"}}
	c.Guard = Guard{}
	c.Guests = Guard{Ports: []string{"eth2"}, Own: []netip.Addr{netip.MustParseAddr("10.41.0.1")}, Stations: []net.HardwareAddr{{2, 0, 0, 0, 0, 1}}}
	return c
}

// nft from Debian says what the kernel was given.
func nft(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command("nft", args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

// elements of a set come in the order of their hashes.
var elements = regexp.MustCompile(`elements = \{[^}]*\}`)

func inOrder(s string) string {
	list := strings.FieldsFunc(s[len("elements = {"):len(s)-1], func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
	slices.Sort(list)
	return "elements = { " + strings.Join(list, ", ") + " }"
}

func TestGolden(t *testing.T) {
	bare := nodeConfig()
	bare.Interfaces, bare.Forwardings, bare.Guard = nil, nil, Guard{}
	for _, test := range []struct {
		name   string
		config Config
	}{
		{"zero", Config{}},
		{"bare", bare},
		{"node", nodeConfig()},
		{"gateway", gatewayConfig()},
		{"guests", guestsConfig()},
	} {
		t.Run(test.name, func(t *testing.T) {
			var f Firewall
			if err := f.Apply(test.config); err != nil {
				t.Fatal(err)
			}
			got := elements.ReplaceAllStringFunc(nft(t, "-s", "list", "ruleset"), inOrder)
			if err := f.Remove(); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", test.name+".nft")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("not as in %s (-want +got); write it anew with -update:\n%s", golden, d)
			}
			if rest := nft(t, "list", "ruleset"); rest != "" {
				t.Errorf("after Remove: expected nothing, got\n%s", rest)
			}
		})
	}
}
