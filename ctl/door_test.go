package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/ctl/doorway"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/local"
	"halo.internal/mesh/api"
	"halo.internal/mesh/door"
	"halo.internal/mesh/listen"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// mast is a node: its door is real, what is behind it is not.
type mast struct {
	key  identity.Key
	at   string // address of its door
	name string

	mu       sync.Mutex // guards what follows
	standing operator.Standing
	events   []model.Event
}

func newMast(t *testing.T, network identity.PublicKey) *mast {
	t.Helper()
	m := &mast{key: identity.New(), name: "mast", at: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))}
	m.standing = operator.Standing{Now: time.Now(), Sure: true}
	d, err := door.New(door.Config{
		Key: m.key, Network: network, Routes: m.routes(), Log: slog.New(slog.DiscardHandler),
		Standing: func() operator.Standing {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.standing
		},
		Event: func(kind string, s model.Severity, message string, _ ...string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.events = append(m.events, model.Event{Boot: 3, Seq: uint64(len(m.events) + 1), Time: standInNow, Node: m.key.ID(), Kind: kind, Severity: s, Message: message})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := listen.At{Iface: "lo", Addr: netip.MustParseAddr(m.at), From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Serve(t.Context(), at)
	}()
	t.Cleanup(func() { <-done })
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("tcp", net.JoinHostPort(m.at, strconv.Itoa(paths.DoorPort)))
		if err == nil {
			c.Close()
			return m
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// routes are those of halo-mesh's socket as far as they matter here.
func (m *mast) routes() http.Handler {
	mux := http.NewServeMux()
	graph := health.New("halo-mesh")
	graph.Declare("bat0")
	graph.Set("bat0", health.OK, "")
	mux.Handle("/", api.Handler(m, graph))
	mux.HandleFunc("GET "+local.RouteSupport, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a tar") })
	return mux
}

// mast is a daemon that has nothing but a status, events and a firewall.
func (m *mast) Status(context.Context, bool) (model.MeshStatus, error) {
	return model.MeshStatus{Node: m.key.ID(), Name: m.name, Mesh: "ETHRX0001-8A", Country: "DE", OverlayV4: "10.42.1.2",
		Interfaces: []model.Interface{{Name: "eth0", Kind: "ethernet", Up: true, PortRole: "client", MAC: "02:00:00:00:00:09"}}}, nil
}

func (m *mast) Events(_, seq uint64) []model.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]model.Event{}, m.events[min(seq, uint64(len(m.events))):]...)
}

func (m *mast) Firewall() (model.FirewallStatus, error) {
	return model.FirewallStatus{
		Zones: []model.FirewallZone{{Zone: model.ZoneClients, Interfaces: []string{"br0"}, Drops: []model.FirewallCount{{Rule: "denied", Packets: 7, Bytes: 700}}}, {Zone: ""}},
		Rules: []model.FirewallCount{{Rule: "clients to the device: dns", Packets: 3, Bytes: 300}},
	}, nil
}

func (m *mast) Leases() (map[string][]model.Lease, error) {
	return map[string][]model.Lease{"br0": {{Address: netip.MustParseAddr("10.43.7.20"), MAC: "02:00:00:00:00:20", Name: "phone", Expires: time.Now().Add(time.Hour), Heard: true}}}, nil
}

func (m *mast) DNS() (model.DNSStatus, error) {
	return model.DNSStatus{NoUpstream: "no uplink", Names: []model.DNSName{{Name: "mast", Addresses: []netip.Addr{netip.MustParseAddr("10.42.1.2")}}}, Counts: model.DNSCounts{Questions: 9, Local: 8}}, nil
}

// TestNodeWithoutItsGateway is what an operator does when the gateway is off:
// what he needs for that has come with the login.
func TestNodeWithoutItsGateway(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	m := newMast(t, d.key.Public())
	id, there := m.key.ID(), m.key.ID()+"@"+m.at
	u := newUser(t)
	u.fails(t, ctl.ExitUnauthorised, "no operator certificate", "--node", there, "mesh", "status")
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)
	delete(u.environ, "HALO_PASSWORD")

	file := filepath.Join(string(u.dir), "north-ridge.operator")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the certificate: %v, %v", info, err)
	}
	if out := u.must(t, "operator", "show"); !strings.Contains(out, "admin") {
		t.Errorf("operator show:\n%s", out)
	}
	if out := u.must(t, "operator", "list"); !strings.Contains(out, " good") {
		t.Errorf("operator list:\n%s", out)
	}
	if out := u.must(t, "node", "console-code", "gw"); !strings.Contains(out, d.key.ID()) {
		t.Errorf("node console-code:\n%s", out)
	}
	u.must(t, "trust", "renew-codes")
	known := filepath.Join(string(u.dir), "north-ridge.nodes")
	if b, err := os.ReadFile(known); err != nil || !bytes.Contains(b, []byte(d.key.ID())) {
		t.Errorf("the nodes: %s, %v", b, err)
	}

	for _, gateway := range []string{"on", "off"} {
		if gateway == "off" {
			stop()
		}
		for _, tc := range []struct {
			want string
			args []string
		}{
			{"mast (" + id, []string{"mesh", "status"}},
			{"mast (" + id, []string{"status"}},
			{"eth0", []string{"net", "interfaces"}},
			{"clients to the device: dns", []string{"net", "firewall"}},
			{"phone", []string{"net", "leases"}},
			{"mast.halo", []string{"net", "dns"}},
			{"bat0", []string{"health"}},
			{"a tar", []string{"support", "--out", "-"}},
			{"door.opened", []string{"event", "list", "--direct"}},
		} {
			if out := u.must(t, append(tc.args, "--node", there)...); !strings.Contains(out, tc.want) {
				t.Errorf("gateway %s: haloctl %v: want %q in\n%s", gateway, tc.args, tc.want, out)
			}
		}
	}
	if out := u.must(t, "event", "list", "--node", there, "--kind", "door.", "--json"); !strings.Contains(out, "door.opened") {
		t.Errorf("events with the gateway off:\n%s", out)
	}
	u.fails(t, ctl.ExitNotFound, "halo-mesh answers", "--node", there, "mesh", "scan")
	u.fails(t, ctl.ExitUsage, "this asks the gateway", "--node", there, "node", "list")
	u.fails(t, ctl.ExitUsage, "expected a name", "--node", "a b", "mesh", "status")

	// Who is at an address has to be known, or named.
	u.fails(t, ctl.ExitError, "next: if that is the one (its console shows its ID): --node "+there, "--node", m.at, "mesh", "status")
	u.fails(t, ctl.ExitError, "expected n-aaaaaaaaaaaaaaaaaaaa, and it is "+id, "--node", "n-aaaaaaaaaaaaaaaaaaaa@"+m.at, "mesh", "status")
	remember(t, known, apitype.Node{ID: id, Name: "mast", OverlayV4: netip.MustParseAddr(m.at)})
	for _, by := range []string{"mast", id, m.at, "mast@" + m.at} {
		if out := u.must(t, "--node", by, "mesh", "status"); !strings.Contains(out, id) {
			t.Errorf("by %s:\n%s", by, out)
		}
	}
	u.fails(t, ctl.ExitUnreachable, "next: join the overlay's clients", "--node", id+"@127.0.0.1:9", "mesh", "status")
	u.fails(t, ctl.ExitError, "where nobody is, is not known here", "--node", "nobody", "mesh", "status")

	// What the list of members says reaches the next request.
	m.mu.Lock()
	m.standing.Withdrawn = model.Operators{Floor: 9}
	m.standing.ListEpoch, m.standing.Epoch = epochOf(t, file, d.key.Public()), epochOf(t, file, d.key.Public())
	m.mu.Unlock()
	u.fails(t, ctl.ExitUnauthorised, "next: haloctl login", "--node", "mast", "mesh", "status")

	if code, _, _ := u.run(t.Context(), "logout"); code != ctl.ExitUnreachable {
		t.Errorf("logout without the gateway: exit status %d", code)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the key is still there after logout")
	}
}

func remember(t *testing.T, file string, nodes ...apitype.Node) {
	t.Helper()
	if err := doorway.KnownOf(nodes, time.Now()).Save(file); err != nil {
		t.Fatal(err)
	}
}

// epochOf reads the certificate that is kept in a file.
func epochOf(t *testing.T, file string, network identity.PublicKey) uint64 {
	t.Helper()
	c, err := doorway.LoadCredential(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := operator.Decode(c.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	o, err := operator.Parse(network, raw)
	if err != nil {
		t.Fatal(err)
	}
	return o.Epoch
}

// TestRolesAtADoor: somebody who may only look is told so, and what he may is
// what he may at the gateway.
func TestRolesAtADoor(t *testing.T) {
	d := newDevice(t)
	d.start(t)
	m := newMast(t, d.key.Public())
	admin, viewer := newUser(t), newUser(t)
	admin.environ["HALO_CLAIM_CODE"], admin.environ["HALO_PASSWORD"], admin.environ["HALO_NEW_PASSWORD"] = claimCode, newPassword, newPassword
	admin.must(t, "claim", "--gateway=https://"+d.tls)
	admin.must(t, "user", "add", "vera", "--role", "viewer")
	sum := fingerprint(t, admin)
	viewer.environ["HALO_PASSWORD"] = newPassword
	viewer.must(t, "login", "--user", "vera", "--gateway=https://"+d.tls, "--ca-sha256", sum)
	there := m.key.ID() + "@" + m.at
	viewer.must(t, "--node", there, "mesh", "status")
	if out := viewer.must(t, "--node", there, "mesh", "topology"); !strings.Contains(out, "BATMAN_IV") {
		t.Errorf("mesh topology:\n%s", out)
	}
	if out := viewer.must(t, "--node", there, "net", "reserve", "list"); !strings.Contains(out, "camera") {
		t.Errorf("net reserve list:\n%s", out)
	}
	viewer.fails(t, ctl.ExitUnauthorised, "this needs the role operator", "--node", there, "net", "reserve", "add", "02:00:00:00:00:20", "10.43.7.20")
	admin.fails(t, ctl.ExitError, "the address is in use", "--node", there, "net", "reserve", "add", "02:00:00:00:00:20", "10.43.7.20")
	admin.fails(t, ctl.ExitNotFound, "haloctl net reserve list", "--node", there, "net", "reserve", "remove", "02:00:00:00:00:20")
	viewer.fails(t, ctl.ExitUnauthorised, "next: your role does not allow this", "--node", there, "mesh", "scan")
	viewer.fails(t, ctl.ExitUnauthorised, "this needs the role admin", "--node", there, "mesh", "capture", "--out", "-")
	viewer.fails(t, ctl.ExitUnauthorised, "", "node", "console-code", "gw")

	// The next command of somebody whose role has changed brings the certificate
	// of that role.
	admin.must(t, "user", "role", "vera", "operator")
	viewer.must(t, "login", "--user", "vera")
	viewer.fails(t, ctl.ExitNotFound, "halo-mesh answers", "--node", there, "mesh", "scan")
	var list struct{ Items []apitype.OperatorCertificate }
	if err := json.Unmarshal([]byte(admin.must(t, "operator", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	revoked := 0
	for _, c := range list.Items {
		if c.Revoked != nil {
			revoked++
		}
	}
	// A login brings another one in any case: the last may have been revoked.
	var before, after apitype.OperatorCertificate
	for _, c := range []*apitype.OperatorCertificate{&before, &after} {
		if err := json.Unmarshal([]byte(viewer.must(t, "operator", "show", "--json")), c); err != nil {
			t.Fatal(err)
		}
		viewer.must(t, "mesh", "status", "--node", there)
		viewer.must(t, "login", "--user", "vera")
	}
	if before.Serial != 3 || after.Serial != 4 || before.Key != after.Key {
		t.Errorf("got %+v, then %+v", before, after)
	}
	if len(list.Items) != 3 || revoked != 1 {
		t.Errorf("got %+v", list)
	}
	admin.must(t, "operator", "revoke", "3")
	admin.fails(t, ctl.ExitNotFound, "haloctl operator list", "operator", "revoke", "99")
	admin.fails(t, ctl.ExitUsage, "expected a serial number", "operator", "revoke", "x")
}

func fingerprint(t *testing.T, u *user) string {
	t.Helper()
	var s struct {
		System apitype.SystemInfo `json:"system"`
	}
	if err := json.Unmarshal([]byte(u.must(t, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s.System.CASHA256
}
