//go:build lab

package wireless_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"halo.internal/agent"
	"halo.internal/ctl"
	"halo.internal/ctl/profile"
	"halo.internal/gateway"
	"halo.internal/health"
	"halo.internal/lab/air/hwsim"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/timeline"
	"halo.internal/mesh/wireless"
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

// relay is the air between all radios, in which one can be wedged: it takes frames,
// says of none that it was sent, and hears nothing.
type relay struct {
	medium *hwsim.Medium
	mu     sync.Mutex // guards what follows
	radios []net.HardwareAddr
	wedged string
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	m, err := hwsim.OpenMedium(0)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{medium: m}
	ended := make(chan struct{})
	go func() { defer close(ended); r.carry() }()
	t.Cleanup(func() { m.Close(); <-ended })
	return r
}

func (r *relay) wedge(radio string) { r.mu.Lock(); defer r.mu.Unlock(); r.wedged = radio }

// carry delivers each frame to all other radios, until the medium is closed.
func (r *relay) carry() {
	for {
		f, err := r.medium.Next()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			return
		}
		r.mu.Lock()
		from, wedged := f.Transmitter.String(), r.wedged
		if !slices.ContainsFunc(r.radios, func(a net.HardwareAddr) bool { return a.String() == from }) {
			r.radios = append(r.radios, f.Transmitter)
		}
		radios := slices.Clone(r.radios)
		r.mu.Unlock()
		if from == wedged {
			continue
		}
		acked := false
		for _, to := range radios {
			if to.String() == from || to.String() == wedged {
				continue
			}
			acked = f.Data[4]&1 == 0                            // with two radios, it is for the other
			_ = r.medium.Deliver(to, f.Data, 0, -50, f.FreqMHz) // the radio may be gone
		}
		_ = r.medium.Report(f, acked, -50, hwsim.Attempts{{Rate: max(f.Plan[0].Rate, 0), Count: 1}, {Rate: -1}, {Rate: -1}, {Rate: -1}})
	}
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
// halo-mesh, start; then the node's radio wedges until it is restarted, then its
// bat0 is removed, and then its power is cut. It comes back each time, with nobody
// touching it, and tells how.
func TestRecoveriesHaveTimelines(t *testing.T) {
	s := newSky(t)
	air := newRelay(t)
	g, n := bundles(t, "BATMAN_IV")
	t.Setenv(envWhole, "1")
	gw, node := s.board(model.RoleGateway, g), s.board(model.RoleNode, n)
	gw.plug(nil)
	node.plug(nil)
	mac := net.HardwareAddr{2, 0, 0, 0, 0xaa, byte(s.made)}.String()
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

	air.wedge(mac)
	s.until("the radio is restarted", func() error {
		if told := node.told(wireless.EventRestarted); len(told) == 0 || told[0].Fields["evidence"] != heal.Unreported.String() {
			return fmt.Errorf("told of %+v", told)
		}
		return nil
	})
	if told := gw.told(wireless.EventRestarted); len(told) != 0 {
		t.Errorf("the gateway's radio is alone, and was restarted: %+v", told)
	}
	air.wedge("")
	list = node.well(1)
	wedge := list[1]
	if wedge.Cause != model.CauseBroken || wedge.Check != "peers" || reached(wedge, model.StagePeer) <= 0 || reached(wedge, model.StageTelemetry) != wedge.TotalMS {
		t.Errorf("the wedged radio: %+v", wedge)
	}
	if !slices.ContainsFunc(wedge.Steps, func(m model.RecoveryMark) bool {
		return m.Name == "restart" && strings.Contains(m.Detail, "says of none that it was sent")
	}) {
		t.Errorf("what was done: %+v", wedge.Steps)
	}
	s.until("it is told that the radio works", func() error {
		if len(node.told(wireless.EventHealed)) != 1 {
			return errors.New("it is not")
		}
		return nil
	})

	s.ok(within(node.ns, func() error {
		link, err := netlink.LinkByName(paths.BatIface)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}))
	list = node.well(2)
	if c := list[2]; c.Cause != model.CauseBroken || reached(c, model.StageOriginator) <= 0 || len(node.told("mesh.bat0.failed")) != 1 {
		t.Errorf("without bat0: %+v, %+v", c, node.told("mesh.bat0.failed"))
	}

	b, err := os.ReadFile(filepath.Join(node.root, paths.State, paths.Timeline))
	s.ok(err)
	if kept, err := timeline.Parse(b); err != nil || len(kept) != 3 {
		t.Errorf("on the card: %v, %s", err, b)
	}
	node.reboot()
	list = node.well(3)
	if c := list[3]; len(list) != 4 || c.Cause != model.CausePowerOn || c.Boot != 2 || list[1].TotalMS != wedge.TotalMS {
		j, _ := json.Marshal(list)
		t.Errorf("after the power was cut: %s", j)
	}
	text := node.printed()
	t.Logf("the node's recoveries:\n%s", text)
	for _, want := range []string{"power-on", "peers broke", "restart", "TELEMETRY"} {
		if !strings.Contains(text, want) {
			t.Errorf("haloctl does not show %q", want)
		}
	}
}
