//go:build lab

package systemtest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// host plugs a Debian host into the first port of a machine that is left for HALO to
// find out about.
func (l *lab) host(t *testing.T, machine, name string) *nstest.Host {
	t.Helper()
	h, cable := nstest.NewTap(t, name)
	if err := l.net.PlugInto(machine, 0, name, cable); err != nil {
		t.Fatal(err)
	}
	return h
}

func (l *lab) run(t *testing.T, h *nstest.Host, what string, want string, command ...string) {
	t.Helper()
	l.eventually(t, what, func() error {
		out, err := h.Run(t, command[0], command[1:]...)
		if err != nil || !strings.Contains(out, want) {
			return errors.Join(fmt.Errorf("%s: expected %q, got %q", strings.Join(command, " "), want, out), err)
		}
		return nil
	})
}

// get fetches a page from a host until it holds what is wanted. It trusts anybody, as
// nothing depends on it.
func (l *lab) get(t *testing.T, h *nstest.Host, what, want, url string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		h.Do(t, func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return nil
		})
		return c, err
	}}}
	l.eventually(t, what, func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && !strings.Contains(string(b), want) {
			err = fmt.Errorf("GET %s: expected %q, got %s: %.200q", url, want, resp.Status, b)
		}
		return err
	})
}

const dhclientScript = `#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND|REBOOT)
	ip addr replace "$new_ip_address/24" dev "$interface"
	ip route replace default via "$new_routers"
	echo "bound $new_ip_address $new_routers $new_domain_name_servers" ;;
esac
`

// aPhone is served at a node, by names and addresses, and reaches the gateway, a
// client of the gateway and the Internet through the overlay.
func aPhone(t *testing.T, l *lab) {
	node := l.nodes[0]
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(dhclientScript), 0o755); err != nil {
		t.Fatal(err)
	}
	// The Internet: a network with a server of DHCP at the gateway's free port.
	internet := l.host(t, l.gateway.Name(), "inet0")
	l.run(t, internet, "an address of the Internet", "", "ip", "address", "add", "192.0.2.1/24", "dev", "inet0")
	internet.Start(t, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--interface=inet0", "--bind-interfaces", "--port=53", "--no-resolv", "--no-hosts",
		"--address=/www.example/192.0.2.1", "--dhcp-range=192.0.2.100,192.0.2.150,1h", "--dhcp-leasefile="+filepath.Join(dir, "inet-leases"), "--user=root", "--pid-file=")
	page := filepath.Join(dir, "www")
	if err := errors.Join(os.Mkdir(page, 0o755), os.WriteFile(filepath.Join(page, "index.html"), []byte("from the Internet"), 0o644)); err != nil {
		t.Fatal(err)
	}
	internet.Start(t, "busybox", "httpd", "-f", "-p", "192.0.2.1:80", "-h", page)
	l.eventually(t, "the gateway has an uplink where a server of DHCP answers", func() error {
		s, err := l.mesh(t.Context(), l.gateway)
		if err != nil {
			return err
		}
		for _, p := range s.Ports {
			if p.Role == "uplink" && !p.Pinned {
				return nil
			}
		}
		return fmt.Errorf("got %+v", s.Ports)
	})

	phone := l.host(t, node.Name(), "phone0")
	lease := strings.Fields(phone.Start(t, "dhclient", "-d", "-v", "-sf", script, "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "phone0").Await("bound", limit))
	if len(lease) != 3 || !strings.HasPrefix(lease[0], "10.43.") || lease[1] != lease[2] {
		t.Fatalf("lease: got %q", lease)
	}
	at := lease[1]
	l.get(t, phone, "the node's page", "HALO", "http://"+at+"/")
	l.run(t, phone, "the gateway's name", paths.OverlayGateway.String(), "dig", "+short", "+time=2", "+tries=1", "@"+at, "gateway.halo")
	l.run(t, phone, "the other node's name", "10.42.", "dig", "+short", "+time=2", "+tries=1", "@"+at, l.nodes[1].Name()+".halo")
	l.run(t, phone, "halo.local", at, "dig", "+short", "+norecurse", "-p", "5353", "+time=2", "+tries=1", "@"+at, "halo.local")
	l.run(t, phone, "a name of the Internet, asked of the gateway", "192.0.2.1", "dig", "+short", "+time=2", "+tries=1", "@"+at, "www.example")
	l.get(t, phone, "the gateway's API through the overlay", "gateway-api", fmt.Sprintf("https://%s:%d/health", paths.OverlayGateway, paths.APITLSPort))
	members := fmt.Sprintf("http://%s:%d/v1/peers", paths.OverlayGateway, paths.PeerListPort)
	if out, err := phone.Run(t, "busybox", "wget", "-T", "10", "-q", "-O", "-", members); err == nil || out != "" {
		t.Errorf("a client got the list of members: %.100q, %v", out, err)
	}
	l.get(t, phone, "the Internet through the gateway", "from the Internet", "http://192.0.2.1/")

	isOver := aTrialThatNobodyConfirms(t, l, phone) // which takes its time
	anOperator(t, l, phone, at)

	other := l.host(t, l.nodes[1].Name(), "camera0")
	lease2 := strings.Fields(other.Start(t, "dhclient", "-d", "-v", "-sf", script, "-lf", filepath.Join(dir, "leases2"), "-pf", filepath.Join(dir, "pid2"), "camera0").Await("bound", limit))
	if len(lease2) != 3 || lease2[1] == at {
		t.Fatalf("lease at the other node: got %q", lease2)
	}
	l.run(t, phone, "a client of the other node", "1 received", "ping", "-c", "1", "-W", "2", lease2[0])
	l.ula(t, phone, "phone0")
	l.run(t, phone, "a client of the other node by IPv6", "1 received", "ping", "-6", "-c", "1", "-W", "2", l.ula(t, other, "camera0"))
	l.listed(t, lease[0], node.Name())
	l.listed(t, lease2[0], l.nodes[1].Name())
	aRename(t, l, phone, at)
	isOver()
	// Nobody on the uplink reaches what is behind, nor the device but for its API.
	if out, err := internet.Run(t, "ping", "-c", "1", "-W", "2", lease[0]); err == nil {
		t.Errorf("a client was reached from the Internet:\n%s", out)
	}
}

// ula is a host's address of the network, which it has by router advertisement, as it has
// the way to others'. The latter Debian's kernel takes only when it is told to (RFC 4191),
// while those of phones do, and what configures networks on laptops.
func (l *lab) ula(t *testing.T, h *nstest.Host, iface string) (address string) {
	t.Helper()
	l.run(t, h, "routes of advertisements are taken", "", "busybox", "sysctl", "-w", "net.ipv6.conf."+iface+".accept_ra_rt_info_max_plen=64")
	l.run(t, h, "a router is asked", "::/64", "rdisc6", "-1", "-q", iface)
	l.eventually(t, "an address by router advertisement", func() error {
		out, err := h.Run(t, "ip", "-6", "-o", "address", "show", "dev", iface, "scope", "global")
		for _, word := range strings.Fields(out) {
			if p, bad := netip.ParsePrefix(word); bad == nil && p.Addr().IsPrivate() {
				address = p.Addr().String()
				return nil
			}
		}
		return errors.Join(fmt.Errorf("expected an address in fd00::/8, got %q", out), err)
	})
	return address
}

// listed waits until the gateway's API tells of a client, and at which node it is.
func (l *lab) listed(t *testing.T, address, node string) {
	t.Helper()
	l.eventually(t, "the client "+address+" is listed", func() error {
		list, err := l.api.Endpoints(t.Context(), "")
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Present && slices.ContainsFunc(e.Addresses, func(a netip.Addr) bool { return a.String() == address }) {
				if e.NodeName != node {
					return fmt.Errorf("expected it at %s, got %s", node, e.NodeName)
				}
				return nil
			}
		}
		return fmt.Errorf("expected %s among the clients, got %+v", address, list)
	})
}

// aRename has a node go by another name for whoever looks: DNS, its peers, itself; and
// back.
func aRename(t *testing.T, l *lab, phone *nstest.Host, at string) {
	node := l.nodes[1]
	n, err := l.api.Node(t.Context(), node.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"summit", node.Name()} {
		if err := l.api.RenameNode(t.Context(), n.ID, name); err != nil {
			t.Fatal(err)
		}
		l.run(t, phone, "the name "+name, n.OverlayV4.String(), "dig", "+short", "+time=2", "+tries=1", "@"+at, name+".halo")
		l.eventually(t, "the node goes by its name "+name, func() error {
			s, err := l.mesh(t.Context(), node)
			if err == nil && s.Name != name {
				err = fmt.Errorf("got %s", s.Name)
			}
			return err
		})
	}
}

// aTrialThatNobodyConfirms is a rule that shuts clients out of the Internet, until what
// held before comes back by itself: isOver waits for that.
func aTrialThatNobodyConfirms(t *testing.T, l *lab, phone *nstest.Host) (isOver func()) {
	const url = "http://192.0.2.1/"
	rule := model.FirewallRule{Name: "no-web", Action: model.Deny, From: model.ZoneOverlay, To: model.ZoneUplink, Proto: "tcp", Ports: []model.PortRange{model.SinglePort(80)}}
	if _, err := l.api.AddFirewallRule(t.Context(), apitype.PlaceFirewallRule{FirewallRule: rule}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.api.ApplyFirewall(t.Context(), apitype.ApplyFirewall{ConfirmS: model.MinTrialS}); err != nil {
		t.Fatal(err)
	}
	if out, err := phone.Run(t, "busybox", "wget", "-T", "3", "-q", "-O", "-", url); err == nil {
		if f, err := l.api.FirewallPolicy(t.Context()); err != nil || f.Trial != nil { // or the trial was over before wget was there
			t.Errorf("on trial is a rule that denies %s, and there came %q; trial %+v, %v", url, out, f.Trial, err)
		}
	}
	return func() {
		t.Helper()
		l.get(t, phone, "the Internet, after a trial that nobody confirmed", "from the Internet", url)
		l.eventually(t, "the trial is over", func() error {
			f, err := l.api.FirewallPolicy(t.Context())
			if err == nil && (f.Trial != nil || len(f.Kept.Rules) != 0) {
				err = fmt.Errorf("got trial %+v, kept %+v", f.Trial, f.Kept)
			}
			return err
		})
		if _, err := l.api.DiscardFirewall(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
