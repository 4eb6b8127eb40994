package mesh_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"halo.internal/model"
	"halo.internal/model/paths"
)

// resolve has a board's own programs ask for a name.
func (d *board) resolve(name string) (string, error) {
	c := http.Client{Timeout: patience, Transport: unixTransport(filepath.Join(d.root, probeSocket))}
	resp, err := c.Get("http://probe/resolve?name=" + url.QueryEscape(name))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(string(b))
	}
	return string(b), err
}

// TestNeuronsHaveNames on all devices, which lead to those that a component is assigned
// to: the gateway knows them, and a node remembers what it has asked for.
func TestNeuronsHaveNames(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, key := bundles(t)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	until(t, "a node is up", func() error { _, err := a.mesh.Status(t.Context()); return err })
	hub(t, gw, a, b)
	until(t, "both have joined", func() error { return errors.Join(a.fetch(), b.fetch()) })
	sa, sb, sg := a.status(), b.status(), gw.status()
	put := func(list ...model.BrainName) {
		t.Helper()
		if err := gw.mesh.PutNames(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	resolves := func(d *board, name string, addresses ...string) {
		t.Helper()
		sorted := make([]netip.Addr, len(addresses))
		for i, a := range addresses {
			sorted[i] = netip.MustParseAddr(a)
		}
		slices.SortFunc(sorted, netip.Addr.Compare)
		want := fmt.Sprint(sorted)
		until(t, name+" on the "+string(d.role), func() error {
			got, err := d.resolve(name)
			if err == nil && got != want {
				err = fmt.Errorf("got %s, want %s", got, want)
			}
			return err
		})
	}
	put(model.BrainName{Name: "brain-sensor-n01", Nodes: []string{sa.Node, sb.Node}},
		model.BrainName{Name: "brain-memory-n01", Nodes: []string{key.ID()}})
	for _, d := range []*board{gw, a, b} {
		resolves(d, "brain-sensor-n01.halo", sa.OverlayV4, sa.OverlayV6, sb.OverlayV4, sb.OverlayV6)
		resolves(d, "brain-memory-n01.halo", paths.OverlayGateway.String(), sg.OverlayV6)
		if got, err := d.resolve("brain-send-n01.halo"); err == nil || !strings.Contains(err.Error(), "no such host") {
			t.Errorf("a component that nothing is assigned to, on the %s: %s, %v", d.role, got, err)
		}
	}
	put(model.BrainName{Name: "brain-thought-n01", Nodes: []string{sb.Node}}) // all others are gone
	resolves(gw, "brain-thought-n01.halo", sb.OverlayV4, sb.OverlayV6)
	if got, err := gw.resolve("brain-memory-n01.halo"); err == nil {
		t.Errorf("a component that nothing is assigned to any more: %s", got)
	}
	if !gw.status().Named {
		t.Error("the status does not tell that gateway-api has said the names")
	}
	resolves(a, "brain-thought-n01.halo", sb.OverlayV4, sb.OverlayV6)

	gw.cut()
	gw.launch()
	until(t, "halo-mesh is back", func() error { _, err := gw.mesh.Status(t.Context()); return err })
	if gw.status().Named {
		t.Error("the status does not tell gateway-api to say the names again")
	}
	resolves(a, "brain-thought-n01.halo", sb.OverlayV4, sb.OverlayV6) // it remembers them
}
