package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/model"
)

// probe makes of a packet of the traffic tests what Judge takes; ok is false for
// what is no first packet of a connection.
func (r row) probe(ip []byte) (p Probe, ok bool) {
	var l4 []byte
	if ip[0]>>4 == 4 {
		p.From, p.To, p.Proto, l4 = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20])), ip[9], ip[20:]
	} else {
		p.From, p.To, p.Proto, l4 = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40])), ip[6], ip[40:]
	}
	switch p.Proto {
	case unix.IPPROTO_TCP:
		ok = l4[13] == flagSYN
		fallthrough
	case unix.IPPROTO_UDP:
		ok = ok || p.Proto == unix.IPPROTO_UDP
		p.SPort, p.DPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	default:
		p.ICMP, ok = l4[0], l4[0] == echo4 || l4[0] == echo6
	}
	p.In, p.Out = r.from, model.ZoneUplink
	in := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return netip.MustParsePrefix(t).Contains(p.To) })
	}
	switch {
	case slices.Contains([]string{rUp4, rUp6, rMe4, rMe6, rCl4, rCl6, rOv4, rOv6, "255.255.255.255"}, p.To.String()), p.To.IsMulticast():
		p.Out = model.ZoneLocal
	case in("10.41.0.0/16", "fd00:aa:bb:1::/64"):
		p.Out = model.ZoneMesh
	case in("10.43.0.0/24", "fd00:aa:bb:100::/64"):
		p.Out = model.ZoneClients
	case in("10.42.0.0/16", "10.43.0.0/16", "fd00:aa:bb::/48"):
		p.Out = model.ZoneOverlay
	}
	return p, ok
}

// judged holds Judge to what the kernel has just done with a packet.
func (w *world) judged(t *testing.T, r row, ip []byte) {
	t.Helper()
	p, ok := r.probe(ip)
	if kind, _, _ := strings.Cut(r.counter, "/"); w.elsewhere || !ok || kind == "invalid" || kind == "established" {
		return
	}
	if r.from == model.ZoneUplink && slices.Contains([]string{rUp4, rUp6}, p.From.String()) {
		return // comes from where no answer would go
	}
	if w.config.ZoneOf(map[model.Zone]string{up: "eth0", me: "bat0", cl: "br0", ov: "wg0"}[r.from]) == "" {
		p.In = ""
	}
	if r.at == nowhere && p.Out == cl && len(w.config.Interfaces[cl]) == 0 {
		p.Out = ""
	}
	v := w.applied.judge(p)
	refused := strings.HasPrefix(r.counter, "denied") || strings.HasPrefix(r.counter, "spoofed") || r.counter == "rule/no-mail" || r.counter == "leak"
	if v.Passes == refused {
		t.Errorf("judge: passes is %v, the kernel counts it as %s", v.Passes, r.counter)
	}
	if r.counter != "masquerade" && v.Counter != r.counter {
		t.Errorf("judge: expected %s, as the kernel has it, got %s", r.counter, v.Counter)
	}
}

func TestPreview(t *testing.T) {
	base := gatewayConfig()
	base.Ports, base.Rules = nil, nil
	base.Services = Services(true, 4255)
	for i, s := range base.Services {
		if s.Name == "portal" {
			base.Services[i].Zones = append(slices.Clone(s.Zones), up)
		}
	}
	fromUplink := &Probe{From: netip.MustParseAddr(up4), To: netip.MustParseAddr(rUp4), In: up, Out: model.ZoneLocal, Proto: unix.IPPROTO_TCP, SPort: 40000, DPort: 8443}
	fromOverlay := &Probe{From: netip.MustParseAddr(ov4), To: netip.MustParseAddr(rOv4), In: ov, Out: model.ZoneLocal, Proto: unix.IPPROTO_TCP, SPort: 40000, DPort: 8080}
	deny := func(name string, from, to model.Zone, proto string, sources ...string) model.FirewallRule {
		return model.FirewallRule{Name: name, Action: model.Deny, From: from, To: to, Proto: proto, Sources: prefixes(sources...)}
	}
	for _, tc := range []struct {
		name     string
		policy   model.FirewallPolicy
		caller   *Probe
		locksOut string
		added    []string
		breaks   []string // parts of the lines
	}{
		{name: "nothing", caller: fromUplink},
		{
			name: "a port forward", caller: fromUplink,
			policy: model.FirewallPolicy{PortForwards: []model.PortForward{{Name: "web", Proto: "tcp", Port: model.SinglePort(8081), To: netip.MustParseAddr(cl4), ToPort: 80}}},
			added:  []string{"web: forward tcp port 8081 from uplink to 10.43.0.10:80"},
		},
		{
			name: "who asks by the uplink is shut out", caller: fromUplink,
			policy:   model.FirewallPolicy{Rules: []model.FirewallRule{deny("strangers", up, model.ZoneLocal, "tcp")}},
			locksOut: "strangers: deny tcp from uplink to local", added: []string{"strangers: deny tcp from uplink to local"},
			breaks: []string{"uplink to the device: portal (tcp port 8443), by strangers"},
		},
		{
			name: "and by the overlay not", caller: fromOverlay,
			policy: model.FirewallPolicy{Rules: []model.FirewallRule{deny("strangers", up, model.ZoneLocal, "tcp")}},
			added:  []string{"strangers: deny tcp from uplink to local"}, breaks: []string{"uplink to the device: portal"},
		},
		{
			name: "his own address alone", caller: fromUplink,
			policy:   model.FirewallPolicy{Rules: []model.FirewallRule{deny("me", up, model.ZoneLocal, "", up4+"/32")}},
			locksOut: "me: deny anything from uplink 198.51.100.2/32 to local", added: []string{"me: deny anything from uplink 198.51.100.2/32 to local"},
		},
		{
			name: "allowed before it is denied", caller: fromUplink,
			policy: model.FirewallPolicy{Rules: []model.FirewallRule{
				{Name: "office", Action: model.Allow, From: up, To: model.ZoneLocal, Proto: "tcp", Ports: ports("8443"), Sources: prefixes("198.51.100.0/24")},
				deny("strangers", up, model.ZoneLocal, ""),
			}},
			added:  []string{"office: allow tcp port 8443 from uplink 198.51.100.0/24 to local", "strangers: deny anything from uplink to local"},
			breaks: []string{"uplink to the device: portal"},
		},
		{
			name:   "the mesh is shut",
			policy: model.FirewallPolicy{Rules: []model.FirewallRule{deny("mesh", me, model.ZoneLocal, "udp")}},
			added:  []string{"mesh: deny udp from mesh to local"},
			breaks: []string{"wireguard (udp port 51820), by mesh", "announce", "doctor", "dhcp", "ntp"},
		},
		{
			name:   "clients have no way out",
			policy: model.FirewallPolicy{Rules: []model.FirewallRule{deny("inside", cl, up, "")}},
			added:  []string{"inside: deny anything from clients to uplink"}, breaks: []string{"clients to uplink, by inside"},
		},
		{
			name:   "an opening and a forwarding",
			policy: model.FirewallPolicy{Openings: []model.ZoneOpening{{Zone: up, Services: []string{"door", "wireguard"}}}, Forwardings: []model.Forwarding{{From: cl, To: me}}},
			added:  []string{"uplink to the device: wireguard (udp port 51820)", "uplink to the device: door (tcp port 4255)", "clients to mesh"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := base.With(tc.policy)
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Preview(base, tc.caller)
			if err != nil {
				t.Fatal(err)
			}
			if p.LocksOut != tc.locksOut {
				t.Errorf("locks out: expected %q, got %q", tc.locksOut, p.LocksOut)
			}
			if slices.Sort(p.Added); !slices.Equal(p.Added, slices.Sorted(slices.Values(tc.added))) {
				t.Errorf("added: expected %q, got %q", tc.added, p.Added)
			}
			for _, part := range tc.breaks {
				if !slices.ContainsFunc(p.Breaks, func(b string) bool { return strings.Contains(b, part) }) {
					t.Errorf("breaks: expected %q in %q", part, p.Breaks)
				}
			}
			if len(tc.breaks) == 0 && len(p.Breaks) > 0 {
				t.Errorf("breaks: expected nothing, got %q", p.Breaks)
			}
			if back, err := base.Preview(c, nil); err != nil || !slices.Equal(slices.Sorted(slices.Values(back.Removed)), p.Added) {
				t.Errorf("taken back: expected %q to be removed, got %q, %v", p.Added, back.Removed, err)
			}
		})
	}
}

func TestAPolicyIsHeldToTheDevice(t *testing.T) {
	base := gatewayConfig()
	base.Ports, base.Rules = nil, nil
	to := netip.MustParseAddr(cl4)
	for name, p := range map[string]model.FirewallPolicy{
		"there is no service telnet":                  {Openings: []model.ZoneOpening{{Zone: up, Services: []string{"telnet"}}}},
		"it is there without anybody's configuration": {Forwardings: []model.Forwarding{{From: cl, To: ov}}},
		"open to the uplink for the service door": {Openings: []model.ZoneOpening{{Zone: up, Services: []string{"door"}}},
			PortForwards: []model.PortForward{{Name: "x", Proto: "tcp", Port: model.SinglePort(4255), To: to}}},
		"are the device's own":               {Rules: []model.FirewallRule{{Name: "halo-x", Action: model.Deny, From: up, To: model.ZoneLocal}}},
		"expected it once":                   {Rules: []model.FirewallRule{{Name: "x", Action: model.Deny, From: up, To: cl}, {Name: "x", Action: model.Deny, From: up, To: cl}}},
		"expected an address of a client or": {PortForwards: []model.PortForward{{Name: "x", Proto: "tcp", Port: model.SinglePort(80), To: netip.MustParseAddr(far4)}}},
		"expected services in order":         {Openings: []model.ZoneOpening{{Zone: up, Services: []string{"field", "door"}}}},
	} {
		if _, err := base.With(p); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: expected %q, got %v", p, name, err)
		}
	}
}
