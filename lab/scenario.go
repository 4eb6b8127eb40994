package lab

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/scenarios"
)

const scenarioLong = `Scenario boots networks of its own, beside a lab that may be up, does to them what
the field does to radios, boards and clocks, and attacks them. In each scenario every
legitimate device has to come back with nobody touching it: with its neighbours, its
addresses, its encrypted way to the gateway, and no reading lost. It prints how long
the slowest of them took to each of these, and fails unless all pass.

Scenarios that need the same kind of network share one. What a client or a stranger
on a cable does is played by halo-lab itself: no root is needed.`

func (a *app) scenarioCommand() *cobra.Command {
	var p scenarios.Plan
	var quiet bool
	c := &cobra.Command{
		Use: "scenario all|list|NAME …", Short: "break networks in many ways, and see them come back", Long: scenarioLong, Args: cobra.MinimumNArgs(1),
		Example: "  halo-lab scenario list\n  halo-lab scenario all\n  halo-lab scenario node-restart --repeat 20",
		RunE: func(c *cobra.Command, names []string) error {
			if len(names) == 1 && names[0] == "list" {
				return a.listScenarios()
			}
			list, err := scenarios.Named(names...)
			if err != nil {
				return err
			}
			p.Scenarios = list
			return a.scenarios(c.Context(), p, quiet)
		},
	}
	f := c.Flags()
	f.StringVar(&p.GatewayImage, "gateway-image", "out/halo-gateway-qemu-virt.img", "`image` of the gateway")
	f.StringVar(&p.NodeImage, "node-image", "out/halo-node-qemu-virt.img", "`image` of the nodes")
	f.IntVar(&p.Repeat, "repeat", 1, "how often restarts are repeated: `number` of runs")
	f.DurationVar(&p.Partition, "partition", 200*time.Second, "`time` that a partition lasts")
	f.BoolVar(&quiet, "quiet", false, "say nothing before the end")
	return c
}

func (a *app) listScenarios() error {
	all := scenarios.All()
	return a.show(all, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SCENARIO\tMESH\tWHAT HAPPENS")
		for _, s := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.Mesh, s.Short)
		}
		return t.Flush()
	})
}

// scenarioDir is the folder of the networks of scenarios, in the lab's.
const scenarioDir = "scenarios"

func (a *app) scenarios(ctx context.Context, p scenarios.Plan, quiet bool) error {
	for _, image := range []string{p.GatewayImage, p.NodeImage} {
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("%w; `make lab-images` builds the images", err)
		}
	}
	p.Dir = filepath.Join(a.dir, scenarioDir)
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(p.Dir, logName))
	if err != nil {
		return err
	}
	defer log.Close()
	p.Log = slog.New(slog.NewTextHandler(log, nil))
	start := time.Now()
	if !quiet { // progress is for people, also while programs get JSON
		p.Say = func(text string) {
			fmt.Fprintf(a.env.Stderr, "%6.0f s  %s\n", time.Since(start).Seconds(), text)
		}
	}
	results, err := p.Run(ctx)
	if results == nil {
		results = []scenarios.Result{}
	}
	if shown := a.show(results, func(w io.Writer) error { return scenarios.Table(w, results) }); shown != nil {
		return shown
	}
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range results {
		if !r.OK {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d runs failed; consoles and logs are in %s", failed, len(results), p.Dir)
	}
	return nil
}
