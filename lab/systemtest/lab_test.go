//go:build lab

package systemtest_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"halo.internal/ctl/client"
	"halo.internal/lab/admin"
	"halo.internal/lab/bus"
	"halo.internal/lab/network"
	"halo.internal/lab/scenarios"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
	"halo.internal/model/pcap"
)

// settings of the agents.
const settings = scenarios.Settings

// uptime is a metric that never stays the same.
const uptime = "system.host.uptime_s"

// limit of each wait: several times what it takes on two busy cores that
// emulate everything.
const limit = scenarios.Limit

// lab is the network under test.
type lab struct {
	net     *network.Network
	gateway *network.Machine
	nodes   []*network.Machine
	images  string
	pcap    string
	api     *client.Client
	world   *scenarios.World // once it is claimed
}

// build makes a gateway and nodes, all off. agent is the agents' settings, devices what is
// wired to each.
func build(t testing.TB, mesh network.Mesh, nodes int, agent, devices string) *lab {
	t.Helper()
	l := &lab{images: os.Getenv("HALO_IMAGES")}
	if l.images == "" {
		l.images = "../../out"
	}
	c := scenarios.Config{
		GatewayImage: l.image(model.RoleGateway), NodeImage: l.image(model.RoleNode), Dir: t.TempDir(), Mesh: mesh,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	o := c.Options()
	o.Nodes, o.Agent = nodes, agent
	var err error
	if o.Devices, err = bus.Parse(devices); err != nil {
		t.Fatal(err)
	}
	l.net, err = network.New(t.Context(), o)
	if err != nil {
		t.Fatalf("%v; `make lab-images` builds the images", err)
	}
	t.Cleanup(func() {
		if err := l.net.Close(); err != nil {
			t.Error(err)
		}
	})
	l.gateway, l.nodes = l.net.Machines()[0], l.net.Machines()[1:]
	return l
}

// boot brings a gateway and two nodes up, which mesh by cable, captures what they
// say to each other, and claims the gateway.
func boot(t testing.TB) *lab {
	t.Helper()
	l := build(t, network.ByCable, 2, settings+soon, wired)
	warm(t, l.nodes[0])
	l.pcap = filepath.Join(t.TempDir(), "switch.pcap")
	file, err := os.Create(l.pcap)
	if err != nil {
		t.Fatal(err)
	}
	capture, err := pcap.New(file, pcap.Ethernet)
	if err != nil {
		t.Fatal(err)
	}
	l.net.Switch.Capture(capture)
	t.Cleanup(func() { l.net.Switch.Capture(nil); file.Close() })
	l.up(t)
	return l
}

// up brings all machines up and claims the gateway.
func (l *lab) up(t testing.TB) {
	t.Helper()
	if err := l.net.PowerOnAll(); err != nil {
		t.Fatal(err)
	}
	l.ready(t, func(network.Progress) {})
	l.claim(t)
}

func (l *lab) image(r model.Role) string {
	return filepath.Join(l.images, fmt.Sprintf("halo-%s-qemu-virt.img", r))
}

// ready returns when all machines are up and have found each other. It tells
// observe each step on the way, one at a time.
func (l *lab) ready(t testing.TB, observe func(network.Progress)) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	var mu sync.Mutex
	if err := l.net.Ready(ctx, func(p network.Progress) {
		mu.Lock()
		defer mu.Unlock()
		observe(p)
		t.Logf("%5.1f s %-8s %-8s %s", p.After.Seconds(), p.Machine, p.Stage, p.Detail)
	}); err != nil {
		l.consoles(t)
		t.Fatal(err)
	}
}

// claim makes the test the gateway's admin, as haloctl does.
func (l *lab) claim(t testing.TB) {
	t.Helper()
	base, err := url.Parse(l.gateway.URL())
	if err != nil {
		t.Fatal(err)
	}
	password := rand.Text()
	done, err := client.Claim(t.Context(), base, l.net.Bundles.Gateway.Gateway.ClaimCode, "admin", password, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{password: password, token: done.Tokens.AccessToken}
	if s.plain, err = client.New(base, done.CA, nil); err != nil {
		t.Fatal(err)
	}
	if l.api, err = client.New(base, done.CA, s); err != nil {
		t.Fatal(err)
	}
	l.world = scenarios.NewWorld(l.net, admin.New(l.gateway.URL(), done.CA, password))
	l.world.Capture, l.world.Say = l.pcap, func(text string) { t.Log(text) }
	t.Cleanup(l.world.Admin.Close)
}

// session logs in anew when its token has ended.
type session struct {
	plain    *client.Client
	password string

	mu    sync.Mutex // guards token
	token string
}

func (s *session) Token(ctx context.Context, stale string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stale == "" || stale != s.token {
		return s.token, nil
	}
	t, err := s.plain.Login(ctx, "admin", s.password, nil)
	if err == nil {
		s.token = t.AccessToken
	}
	return s.token, err
}

// expect is nil when ok holds, and an error otherwise that says what was
// expected and what came.
func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("expected "+format, args...)
}

// eventually returns when check does without an error.
func (l *lab) eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			if took := time.Since(began); took > 10*time.Second {
				t.Logf("%s: %.0f s", what, took.Seconds()) // where the suite's time goes
			}
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// consoles shows the end of every console, then what each machine says of its
// mesh: logs are shortened from their middle.
func (l *lab) consoles(t testing.TB) {
	t.Helper()
	for _, m := range l.net.Machines() {
		text, err := os.ReadFile(m.Console())
		if err != nil {
			t.Log(err)
			continue
		}
		t.Logf("--- console of %s, %+v\n%s", m.Name(), m.Status(), text[max(0, len(text)-3000):])
	}
	for _, m := range l.net.Machines() {
		s, err := l.mesh(t.Context(), m)
		text, jsonErr := json.Marshal(s)
		t.Logf("--- mesh of %s: %s, %v", m.Name(), text, errors.Join(err, jsonErr))
	}
}

// mesh is what a machine says of its mesh.
func (l *lab) mesh(ctx context.Context, m *network.Machine) (model.MeshStatus, error) {
	if m == l.gateway {
		if l.api == nil {
			return model.MeshStatus{}, errors.New("the gateway is not claimed yet")
		}
		return l.api.MeshStatus(ctx)
	}
	d, err := m.Diag(ctx)
	if err == nil && d.Mesh == nil {
		err = fmt.Errorf("expected the status of halo-mesh of %s, got none", m.Name())
	}
	if err != nil {
		return model.MeshStatus{}, err
	}
	return *d.Mesh, nil
}

func (l *lab) latest(ctx context.Context, node, metric string) (apitype.Reading, error) {
	list, err := l.api.Telemetry(ctx, node, metric)
	if err != nil {
		return apitype.Reading{}, err
	}
	if len(list) == 0 {
		return apitype.Reading{}, fmt.Errorf("expected a reading of %s of %s, got none", metric, node)
	}
	return list[0], nil
}

func (l *lab) reading(t testing.TB, node, metric string) (r apitype.Reading) {
	t.Helper()
	l.eventually(t, node+" reports "+metric, func() (err error) {
		r, err = l.latest(t.Context(), node, metric)
		return err
	})
	return r
}

func checkNodes(nodes []apitype.Node, want int) error {
	if err := expect(len(nodes) == want+1, "%d nodes, got %d", want+1, len(nodes)); err != nil {
		return err
	}
	seen := map[netip.Addr]bool{}
	for _, n := range nodes {
		role := model.RoleNode
		if n.Name == network.Gateway {
			role = model.RoleGateway
			if err := expect(n.OverlayV4 == paths.OverlayGateway, "%s at %s, got %s", n.Name, paths.OverlayGateway, n.OverlayV4); err != nil {
				return err
			}
		}
		if err := expect(n.Role == role && n.Online && n.Version != "" && n.Commit != "" && n.Slot != "" && !n.Volatile,
			"%s online as %s with version, commit, slot and /perm, got %+v", n.Name, role, n); err != nil {
			return err
		}
		for _, a := range []netip.Addr{n.OverlayV4, n.OverlayV6, n.Underlay} {
			if err := expect(a.IsValid() && !seen[a], "three addresses of its own for %s, got %v", n.Name, a); err != nil {
				return err
			}
			seen[a] = true
		}
		if err := expect(paths.OverlayNet.Contains(n.OverlayV4), "%s within %s, got %s", n.Name, paths.OverlayNet, n.OverlayV4); err != nil {
			return err
		}
	}
	return nil
}

// lastEvent returns the number of the newest event.
func (l *lab) lastEvent(t testing.TB) int64 {
	t.Helper()
	list, err := l.api.Events(t.Context(), client.EventFilter{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("expected events by now, got none")
	}
	return list[0].ID
}
