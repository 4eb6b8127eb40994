//go:build lab

package benchmesh_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// pace of the pings by which the first encrypted reply is noticed.
const pace = 50 * time.Millisecond

// BenchmarkContact measures from the moment that a gateway and a node get their
// radios to the node's first encrypted reply from the gateway: of two halo-meshes
// that run already, and of the rival. Each run is a start of all that is above the
// kernel, and each comes first in its turn.
func BenchmarkContact(b *testing.B) {
	c := newContact(b)
	took := map[string][]float64{}
	for turn := 0; b.Loop(); turn++ {
		all := []struct {
			name string
			run  func() float64
		}{{"halo", c.halo}, {tuned.name, func() float64 { return c.rival(tuned) }}, {defaults.name, func() float64 { return c.rival(defaults) }}}
		for i := range all {
			x := all[(turn+i)%len(all)]
			took[x.name] = append(took[x.name], x.run())
		}
	}
	b.ReportMetric(0, "ns/op") // says nothing
	medians := map[string]float64{}
	for _, name := range []string{"halo", defaults.name, tuned.name} {
		b.Logf("%-5s %.2f", name, took[name])
		medians[name] = median(took[name])
		b.ReportMetric(medians[name], name+"-s")
		b.ReportMetric(took[name][len(took[name])-1], name+"-max-s")
	}
	b.ReportMetric(medians["halo"]/medians[defaults.name], "ratio")
	b.ReportMetric(medians["halo"]/medians[tuned.name], "ratio-tuned")
	b.ReportMetric(float64(len(took["halo"])), "recovered-runs") // one that does not recover ends the benchmark
}

// TestContact has each come into contact once, so that the benchmark can be relied
// on.
func TestContact(t *testing.T) {
	c := newContact(t)
	t.Logf("halo %.2f s, tuned rival %.2f s", c.halo(), c.rival(tuned))
}

// contact is a gateway and a node of HALO's, and the world that rivals come into.
type contact struct {
	*world
	gateway, node *device
}

func newContact(t testing.TB) *contact {
	w := newWorld(t)
	n := w.network(bundle.Mesh{Routing: "BATMAN_IV", Channel: 6}, false)
	c := &contact{world: w, gateway: n.device(model.RoleGateway, "gw"), node: n.device(model.RoleNode, "mast")}
	c.gateway.start()
	n.admit(c.gateway, []*device{c.node}, 1) // it keeps that
	c.gateway.cut()
	return c
}

// halo returns the seconds of one run.
func (c *contact) halo() float64 {
	c.t.Helper()
	a, b := c.radio(""), c.radio("")
	c.gateway.start()
	c.node.start()
	p, err := c.node.space.pinger(paths.OverlayIface, paths.OverlayGateway)
	c.ok(err)
	defer p.close()
	began := time.Now()
	c.plug(c.gateway.space, a)
	c.plug(c.node.space, b)
	at, err := p.until(pace, patience)
	if err != nil {
		s, unknown := c.node.status()
		c.t.Fatalf("halo: %v; the node: %+v, %v", err, s, unknown)
	}
	if testing.Verbose() {
		c.tell(c.node, began)
		c.tell(c.gateway, began)
	}
	c.node.cut()
	c.gateway.cut()
	return at.Sub(began).Seconds()
}

// tell says where the time went.
func (c *contact) tell(d *device, began time.Time) {
	list, err := d.mesh.Events(c.t.Context(), 0, 0)
	c.ok(err)
	line := d.name + ":"
	for _, e := range list {
		if e.Time.After(began) {
			line += fmt.Sprintf(" %.2f %s", e.Time.Sub(began).Seconds(), e.Kind)
		}
	}
	c.t.Log(line)
}

// show tells what a program says.
func (c *contact) show(s *space, line string) {
	_ = s.within(func() error {
		args := strings.Fields(line)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		c.t.Logf("%s: %v\n%s", line, err, out)
		return nil
	})
}

// rival returns the seconds of one run of the rival.
func (c *contact) rival(f flavour) float64 {
	c.t.Helper()
	r := c.world.rival(f)
	a, b := c.radio("rivalgw"), c.radio("rivalnode")
	p, err := r.node.pinger("wg0", paths.OverlayGateway)
	c.ok(err)
	defer p.close()
	began := time.Now()
	c.plug(r.gateway, a)
	r.plugged(r.gateway, a.iface)
	c.plug(r.node, b)
	r.plugged(r.node, b.iface)
	at, err := p.until(pace, patience)
	if err != nil {
		c.t.Errorf("%s: %v", f.name, err)
		for _, s := range []*space{r.gateway, r.node} {
			for _, line := range []string{"iw dev", "batctl meshif bat0 originators", "ip address", "wg"} {
				c.show(s, line)
			}
		}
		c.t.FailNow()
	}
	r.end()
	return at.Sub(began).Seconds()
}
