package lab

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/control"
	"halo.internal/lab/ether"
)

func (a *app) actCommand(use, short string, action control.Action) *cobra.Command {
	return &cobra.Command{
		Use: use + " MACHINE …", Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := client.Act(c.Context(), name, action); err != nil {
					return err
				}
			}
			return a.done("%s: %s", use, strings.Join(names, " "))
		},
	}
}

func (a *app) crashCommand() *cobra.Command {
	return &cobra.Command{
		Use: "crash MACHINE PROCESS", Short: "have a process of a machine die, such as halo-mesh; it needs a mesh by air", Args: cobra.ExactArgs(2),
		Example: "  halo-lab crash node1 halo-mesh",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			if err := lab.Crash(ctx, control.Crash{Machine: args[0], Process: args[1]}); err != nil {
				return err
			}
			return a.done("crash: %s of %s is dead", args[1], args[0])
		}),
	}
}

func (a *app) partitionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "partition GROUP …", Short: "cut groups of machines off from each other, by air and cable", Args: cobra.MinimumNArgs(1),
		Long:    "Partition lets frames pass, by air and cable, within each group alone. A group is\na list of machines with commas between; machines in none are one group together.",
		Example: "  halo-lab partition node1\n  halo-lab partition gateway,node1 node2,node3",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			var groups [][]string
			for _, g := range args {
				groups = append(groups, strings.Split(g, ","))
			}
			if err := client.Partition(c.Context(), groups); err != nil {
				return err
			}
			return a.done("partition: %s", strings.Join(args, " | "))
		},
	}
}

func (a *app) healCommand() *cobra.Command {
	return &cobra.Command{
		Use: "heal", Short: "end a partition", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			if err := client.Heal(c.Context()); err != nil {
				return err
			}
			return a.done("heal: all machines reach each other")
		},
	}
}

func (a *app) linkCommand() *cobra.Command {
	var loss, rate string
	var delay, jitter time.Duration
	c := &cobra.Command{
		Use: "link MACHINE [MACHINE]", Short: "set what a machine's cable, or the way between two machines, does to frames", Args: cobra.RangeArgs(1, 2),
		Long:    "Link sets the condition of a machine's cable, or with two machines of the way\nbetween them, for both directions. What is not given is perfect, so that without\nflags a link is repaired.",
		Example: "  halo-lab link node1 --loss 20% --delay 80ms --jitter 20ms\n  halo-lab link node1 gateway --rate 150k\n  halo-lab link node1",
		RunE: func(c *cobra.Command, args []string) error {
			cond, err := condition(loss, rate, delay, jitter)
			if err != nil {
				return err
			}
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			l := control.Link{A: args[0], Condition: cond}
			if len(args) == 2 {
				l.B = args[1]
			}
			if err := client.SetLink(c.Context(), l); err != nil {
				return err
			}
			return a.done("link %s: %s", strings.Join(args, " to "), describe(cond))
		},
	}
	f := c.Flags()
	f.StringVar(&loss, "loss", "0", "`share` of frames that is lost, such as 0.2 or 20%")
	f.StringVar(&rate, "rate", "0", "bits per second, such as 150k or 2M; 0 is without limit")
	f.DurationVar(&delay, "delay", 0, "`time` that each frame takes")
	f.DurationVar(&jitter, "jitter", 0, "`time` at most that is added to it at random")
	return c
}

// condition reads the flags of link.
func condition(loss, rate string, delay, jitter time.Duration) (ether.Condition, error) {
	c := ether.Condition{Delay: delay, Jitter: jitter}
	text, percent := strings.CutSuffix(loss, "%")
	share, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return c, fmt.Errorf("--loss: expected a share such as 0.2 or 20%%, got %q", loss)
	}
	if c.Loss = share; percent {
		c.Loss = share / 100
	}
	text, unit := rate, 1.0
	for suffix, u := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if t, ok := strings.CutSuffix(rate, suffix); ok {
			text, unit = t, u
		}
	}
	bits, err := strconv.ParseFloat(text, 64)
	if err != nil || !(bits*unit < 1e15) {
		return c, fmt.Errorf("--rate: expected bits per second such as 150k or 2M, got %q", rate)
	}
	c.Rate = int64(bits * unit)
	return c, c.Check()
}

// describe is a condition in words.
func describe(c ether.Condition) string {
	if c == (ether.Condition{}) {
		return "perfect"
	}
	var parts []string
	if c.Loss > 0 {
		parts = append(parts, fmt.Sprintf("loss %.3g%%", c.Loss*100))
	}
	if c.Delay > 0 {
		parts = append(parts, "delay "+c.Delay.String())
	}
	if c.Jitter > 0 {
		parts = append(parts, "jitter "+c.Jitter.String())
	}
	if c.Rate > 0 {
		parts = append(parts, fmt.Sprintf("rate %d kbit/s", c.Rate/1000))
	}
	return strings.Join(parts, ", ")
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "show machines, radios and wires", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := control.Dial(a.dir)
			if err != nil {
				return err
			}
			s, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) error { return statusTable(w, s, time.Now()) })
		},
	}
}

func statusTable(w io.Writer, s control.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tROLE\tSTATE\tSLOT\tSTARTS\tUP\tCPU\tWRITTEN\tADDRESS\tRADIO\tCABLE")
	for _, m := range s.Machines {
		up := "-"
		if m.PID != 0 {
			up = now.Sub(m.Started).Round(time.Second).String()
		}
		state := string(m.State)
		if m.Detail != "" {
			state += ": " + m.Detail
		}
		line := "-"
		if link, ok := s.Switch.Links[m.Name]; ok {
			line = describe(link.Condition)
			if link.Group != 0 {
				line += fmt.Sprintf(", in group %d", link.Group)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%.0f s\t%.1f MB\t%s\t%s\t%s\n", m.Name, m.Role, state, m.Slot, m.Starts, up, m.CPU.Seconds(), float64(m.Disk.WrittenBytes)/1e6, m.URL, radios(m.Radios), line)
	}
	for _, p := range s.Switch.Pairs {
		fmt.Fprintf(t, "\t\t\t\t\t\t\t\t\t\t%s to %s: %s\n", p.A, p.B, describe(p.Condition))
	}
	return t.Flush()
}
