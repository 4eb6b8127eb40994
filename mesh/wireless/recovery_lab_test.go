//go:build lab

package wireless_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"halo.internal/agent"
	"halo.internal/ctl"
	"halo.internal/ctl/profile"
	"halo.internal/gateway"
	"halo.internal/health"
	"halo.internal/mesh/timeline"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// envWhole has a board run all that makes the chain whole: gateway-api on the
// gateway, halo-agent on both.
const envWhole = "HALO_LAB_WHOLE"

// whole runs what a board has besides halo-mesh, until ctx ends.
func whole(ctx context.Context, role model.Role, root string, log *slog.Logger) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	flags := agent.Settings{Sample: agent.Duration(time.Second), Send: agent.Duration(2 * time.Second)}
	if role == model.RoleGateway {
		c := gateway.Board(log.With("process", "gateway-api"))
		c.State, c.Identity = paths.Dir(filepath.Join(root, paths.State)), filepath.Join(root, paths.RunIdentity)
		c.Socket, c.Mesh, c.Budget, c.Every = filepath.Join(root, paths.GatewaySocket), filepath.Join(root, paths.MeshSocket), 16<<20, time.Second
		g.Go(func() error { return gateway.Run(ctx, c) })
	}
	g.Go(func() error {
		return agent.Run(ctx, agent.Config{Root: root, Role: role, BootID: os.Getenv(envBoot), Flags: flags, Log: log.With("process", "halo-agent")})
	})
	return g.Wait()
}

// well waits until a board's chain is whole, and its last recovery over.
func (d *board) well(after int) []model.Recovery {
	d.sky.t.Helper()
	var list []model.Recovery
	d.sky.until("the "+string(d.role)+" is whole", func() error {
		r, err := d.mesh.Health(d.sky.t.Context())
		if err != nil {
			return err
		}
		if r.State != health.OK && r.State != health.Degraded || r.Missing != "" && r.Missing != "clock" && r.Missing != "perm" {
			return fmt.Errorf("missing %s: %s", r.Missing, r.Detail)
		}
		if list, err = d.mesh.Timeline(d.sky.t.Context()); err != nil {
			return err
		}
		if len(list) <= after || list[len(list)-1].State != model.RecoveryOver {
			return fmt.Errorf("recoveries %+v", list)
		}
		return nil
	})
	return list
}

// reached returns when a recovery came to a stage; -1: it was there.
func reached(c model.Recovery, s model.RecoveryStage) int64 {
	if i := slices.IndexFunc(c.Stages, func(m model.RecoveryMark) bool { return m.Name == string(s) }); i >= 0 {
		return c.Stages[i].MS
	}
	return -1
}

// printed is what haloctl shows of a board's recoveries.
func (d *board) printed() string {
	d.sky.t.Helper()
	var out, complaints bytes.Buffer
	code := ctl.Run(d.sky.t.Context(), ctl.Env{
		Args: []string{"mesh", "timeline", "--local"}, Stdout: &out, Stderr: &complaints,
		Profiles: profile.Dir(d.root), Getenv: func(string) string { return "" }, MeshSocket: filepath.Join(d.root, paths.MeshSocket),
	})
	if code != 0 {
		d.sky.t.Errorf("haloctl mesh timeline: %d, %s", code, &complaints)
	}
	return out.String()
}

// TestRecoveriesHaveTimelines has whole devices, of gateway-api, halo-agent and
// halo-mesh, start; then the node's bat0 is removed. It comes back, with nobody touching
// it, and tells how. (How it goes with a radio that is wedged, scenario driver-wedged
// asks of a network of images; what a power cut leaves of it, the tests without machines.)
// In the end halo-mesh dies, and its link stands; that it goes on when it is back,
// scenario mesh-killed asks.
func TestRecoveriesHaveTimelines(t *testing.T) {
	s := newSky(t)
	g, n := bundles(t, "BATMAN_IV")
	t.Setenv(envWhole, "1")
	gw, node := s.board(model.RoleGateway, g), s.board(model.RoleNode, n)
	gw.plug(nil)
	node.plug(nil)
	list := node.well(0)
	first := list[0]
	if first.Cause != model.CausePowerOn || first.BeganMS != 0 || first.Boot != 1 || len(first.Stages) != len(model.RecoveryStages) {
		t.Errorf("the start: %+v", first)
	}
	for i, stage := range model.RecoveryStages[1:] { // after the address, in their order
		if at, before := reached(first, stage), reached(first, model.RecoveryStages[i]); at < before && i > 0 || at <= 0 || at > first.TotalMS {
			t.Errorf("the start: %s after %d ms, %s after %d", stage, at, model.RecoveryStages[i], before)
		}
	}
	gw.well(0)

	s.ok(within(node.ns, func() error {
		link, err := netlink.LinkByName(paths.BatIface)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}))
	list = node.well(1)
	if c := list[1]; c.Cause != model.CauseBroken || c.Boot != 1 || reached(c, model.StageOriginator) <= 0 || reached(c, model.StageTelemetry) != c.TotalMS || len(node.told("mesh.bat0.failed")) != 1 {
		t.Errorf("without bat0: %+v, %+v", c, node.told("mesh.bat0.failed"))
	}
	b, err := os.ReadFile(filepath.Join(node.root, paths.State, paths.Timeline))
	s.ok(err)
	if kept, err := timeline.Parse(b); err != nil || len(kept) != 2 {
		t.Errorf("on the card: %v, %s", err, b)
	}
	text := node.printed()
	t.Logf("the node's recoveries:\n%s", text)
	for _, want := range []string{"power-on", list[1].Check + " broke", "TELEMETRY"} {
		if !strings.Contains(text, want) {
			t.Errorf("haloctl does not show %q", want)
		}
	}

	radio := node.linked()
	s.ok(node.cmd.Process.Kill())
	_ = node.cmd.Wait() // killed, as it reports
	if err := within(node.ns, func() error { _, err := net.InterfaceByName(radio.Iface); return err }); err != nil {
		t.Errorf("the mesh interface is gone with the process: %v", err)
	}
}
