package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/load"
)

const loadLong = `Load plays nodes against a real gateway-api, over the real protocol: they join it, and
send readings and reports of whom they hear, as halo-agent does. Some come back from a
day without the gateway. Then an admin asks the API, each question a few hundred times.
It prints what gateway-api takes, and how long acknowledgements, answers and live values
take; at the end it looks for each sample that was acknowledged, and fails unless all
are there.

gateway-api runs alone in a network namespace of its own, with an identity and a folder
that are made up and go with the run. A gateway that is in use is never loaded: its key
would have to be handed out for that, and the played nodes would stay members of it.`

// loadDir is the folder of loaded gateways, in the lab's.
const loadDir = "load"

func (a *app) loadCommand() *cobra.Command {
	var o load.Options
	var quiet, keep bool
	c := &cobra.Command{
		Use: "load", Short: "play many nodes against a gateway-api, and measure what they cost it", Long: loadLong, Args: cobra.NoArgs,
		Example: "  halo-lab load --nodes 250\n  halo-lab load --nodes 30 --backlog-nodes 30 --for 1m\n  halo-lab load --nodes 50 --kills 10 --for 5m",
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Program == "" {
				var err error
				if o.Program, err = beside("gateway-api"); err != nil {
					return err
				}
			}
			if !load.IsApart() {
				status, err := load.Apart(c.Context(), a.env.Args, a.env.Stdout, a.env.Stderr)
				if err == nil && status != 0 {
					err = &childError{status}
				}
				return err
			}
			return a.load(c.Context(), o, quiet, keep)
		},
	}
	f := c.Flags()
	f.IntVar(&o.Nodes, "nodes", 250, "`number` of nodes; the gateway's own agent sends besides")
	f.IntVar(&o.Metrics, "metrics", 12, "`number` of metrics of each")
	f.DurationVar(&o.Interval, "interval", 10*time.Second, "`time` between readings")
	f.DurationVar(&o.Send, "send", time.Minute, "`time` between batches of them")
	f.DurationVar(&o.For, "for", 2*time.Minute, "`time` that is measured")
	f.DurationVar(&o.Backlog, "backlog", 24*time.Hour, "`time` for which some nodes had no gateway before; 0 for none")
	f.IntVar(&o.BacklogNodes, "backlog-nodes", 10, "`number` of those")
	f.IntVar(&o.Asks, "asks", 300, "how often each question is asked: `number`")
	f.IntVar(&o.Kills, "kills", 0, "how often gateway-api is killed (SIGKILL) and started again: `number`")
	f.BoolVar(&o.Pin, "pin", false, "give gateway-api one core, and the nodes another")
	f.StringVar(&o.Program, "gateway", "", "gateway-api: `program`, the one beside halo-lab when left out")
	f.BoolVar(&keep, "keep", false, "leave gateway-api's folder")
	f.BoolVar(&quiet, "quiet", false, "say nothing before the end")
	return c
}

func (a *app) load(ctx context.Context, o load.Options, quiet, keep bool) (err error) {
	if err := load.Overlay(); err != nil {
		return err
	}
	dir := filepath.Join(a.dir, loadDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if o.Dir, err = os.MkdirTemp(dir, "gateway-"); err != nil {
		return err
	}
	if !keep {
		defer os.RemoveAll(o.Dir)
	}
	start := time.Now()
	if !quiet { // progress is for people, also while programs get JSON
		o.Say = func(text string) {
			fmt.Fprintf(a.env.Stderr, "%6.0f s  %s\n", time.Since(start).Seconds(), text)
		}
		o.Show = func(r load.Row) { fmt.Fprintln(a.env.Stderr, loadRow(r)) }
	}
	f, err := load.Run(ctx, o)
	if keep {
		fmt.Fprintln(a.env.Stderr, "gateway-api's folder:", o.Dir)
	}
	if f == nil {
		return err
	}
	if shown := a.show(f, func(w io.Writer) error { return loadTable(w, f) }); shown != nil {
		return shown
	}
	return err
}

const mib = 1 << 20

func loadRow(r load.Row) string {
	return fmt.Sprintf("%6.0f s  %-7s  %d streams, %.0f samples/s acknowledged after %.0f ms (p99 %.0f), live %.1f ms later (p99 %.1f), %.1f %% of a core, %.1f MiB, %.1f KiB/s to disk, %d errors",
		r.After.Seconds(), r.Phase, r.Streams, r.PerSecond, r.Ack.P50MS, r.Ack.P99MS, r.Told.P50MS, r.Told.P99MS, r.CPU, float64(r.Usage.Resident)/mib, r.Written/1024, r.Errors)
}

// loadTable prints what was measured.
func loadTable(out io.Writer, f *load.Figures) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{what}, args...)...)
	}
	ms := func(what string, v load.Times) {
		line(what, "p50 %.1f ms, p99 %.1f ms, at most %.1f ms (%d)", v.P50MS, v.P99MS, v.MostMS, v.Count)
	}
	line("nodes", "%d with the gateway's own agent, %d links; %d metrics, %d readings a batch", f.Nodes, f.Links, f.Metrics, f.Reports)
	if b := f.Backlog; b != nil {
		line("backlog", "%d samples of %d nodes in %.1f s, %.1f s of processor time", b.Samples, b.Nodes, b.Seconds, b.CPUS)
		ms("acknowledged meanwhile", b.Live)
	}
	line("samples", "%d in %.0f s, %.0f/s", f.Samples, f.Seconds, f.PerSecond)
	ms("acknowledged", f.Ack)
	ms("live after that", f.Told)
	ms("urgent, live", f.Urgent)
	line("processor", "%.1f %% of a core", f.CPUPercent)
	line("memory", "%.1f MiB resident, %.1f at most", float64(f.Resident)/mib, float64(f.Most)/mib)
	line("disk", "%.1f MiB written, %.2f GB a day", float64(f.Written)/mib, float64(f.Written)/1e9*86400/max(f.Seconds, 1))
	if f.Kills > 0 {
		line("killed", "%d times, back after %.0f ms (p50), %.0f ms at most", f.Kills, f.Returned.P50MS, f.Returned.MostMS)
	}
	for _, a := range f.Asked {
		ms("API: "+a.What, a.Times)
		line("", "%.1f ms of processor time each, %d octets", a.CPUMS, a.Octets)
	}
	line("picture", "%d nodes, %d links", f.Pictured, f.Drawn)
	line("errors", "%d", f.Errors)
	line("found again", "%d of %d samples, %d with another value; %d more were not acknowledged", f.Found.Expected-f.Found.Missing, f.Found.Expected, f.Found.Wrong, f.Unsure)
	return t.Flush()
}
