package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const commandLong = `

The gateway signs the command and hands it over as soon as the node is there; one
that is off gets it when it comes, within --expires. haloctl waits for the outcome
unless --no-wait says otherwise: haloctl job shows it later.`

// giving are the flags of all commands to nodes.
type giving struct {
	expires time.Duration
	noWait  bool
}

// commandTo makes a command that has a node do something. made makes it of the
// arguments behind the node; shown shows what has come of it, if it is not plain that
// it was done.
func (a *app) commandTo(use, short, long string, args cobra.PositionalArgs, made func(args []string) (model.Command, error), shown func(context.Context, *client.Client, apitype.Job) error) *cobra.Command {
	var g giving
	c := a.ofNode(use, short, args, func(ctx context.Context, c *client.Client, args []string) error {
		if g.expires < 5*time.Second || g.expires > 7*24*time.Hour {
			return &usageError{fmt.Errorf("--expires: expected 5s to 168h, got %s", g.expires)}
		}
		cmd, err := made(args[1:])
		if err == nil {
			err = cmd.Check()
		}
		if err != nil {
			return &usageError{err}
		}
		j, err := c.Command(ctx, args[0], apitype.CreateCommand{Command: cmd, ExpiresS: int64(g.expires / time.Second)})
		if err != nil {
			return a.cannot(err)
		}
		return a.followJob(ctx, c, j, g.noWait, shown)
	})
	c.Long = long + commandLong
	c.Flags().DurationVar(&g.expires, "expires", 5*time.Minute, "how long it waits for a node that is off")
	c.Flags().BoolVar(&g.noWait, "no-wait", false, "do not wait for the outcome")
	return c
}

// cannot adds what to do next to the gateway's no.
func (a *app) cannot(err error) error {
	if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Type == apitype.ProblemNodeCannot {
		return &hintError{err, "haloctl node capabilities shows what a node can do"}
	}
	return notFound(err, "haloctl node list shows the nodes")
}

// followJob waits for a job and shows what has come of it.
func (a *app) followJob(ctx context.Context, c *client.Client, j apitype.Job, noWait bool, shown func(context.Context, *client.Client, apitype.Job) error) error {
	if noWait {
		return a.show(j, func(io.Writer) error {
			a.say("Job %d is %s.", j.ID, j.State)
			return nil
		})
	}
	j, err := a.awaitJob(ctx, c, j)
	if err != nil {
		return err
	}
	if err := jobError(j); err != nil {
		if a.json {
			return errors.Join(a.show(j, nil), err)
		}
		return err
	}
	if shown == nil {
		shown = func(context.Context, *client.Client, apitype.Job) error {
			return a.show(j, func(io.Writer) error {
				a.say("Done (job %d).", j.ID)
				return nil
			})
		}
	}
	return shown(ctx, c, j)
}

// nodeCommands are the commands of haloctl node that have a node do something.
func (a *app) nodeCommands() []*cobra.Command {
	plain := func(k model.CommandKind) func([]string) (model.Command, error) {
		return func([]string) (model.Command, error) { return model.Command{Kind: k}, nil }
	}
	return []*cobra.Command{
		a.commandTo("reboot NODE", "start a node's machine anew", `Reboot ends all processes of the node in order and starts its machine anew. It is
done when the node is back.`, cobra.ExactArgs(1), plain(model.CommandReboot), nil),
		a.nodeRestart(), a.nodeLocate(),
		a.commandTo("scan NODE [RADIO]", "have a radio of a node look which meshes and networks there are", `Scan takes up to 20 s, in which the radio is away from the mesh for a moment at a
time.`, cobra.RangeArgs(1, 2), func(args []string) (model.Command, error) {
			return model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{Radio: radioOf(args)}}, nil
		}, a.showScan),
		a.nodeCapture(), a.nodeConfig(), a.nodeOutput(), a.nodeDisplay(), a.nodeSpeedTest(), a.nodeReset(),
		a.ofNode("capabilities NODE", "what a node can be asked to do", cobra.ExactArgs(1), a.nodeCapabilities),
	}
}

func (a *app) nodeRestart() *cobra.Command {
	c := a.commandTo("restart NODE COMPONENT", "start one of a node's processes anew", `Restart has halo-mesh, halo-agent, halo-field, gateway-api or haloctl (the console)
end in order, or by force where it hangs, and start anew. It is done when the
process answers again.`, cobra.ExactArgs(2), func(args []string) (model.Command, error) {
		return model.Command{Kind: model.CommandRestart, Restart: &model.RestartCommand{Component: args[0]}}, nil
	}, nil)
	ofNode := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return model.Restartable(), cobra.ShellCompDirectiveNoFileComp
		}
		return ofNode(c, args, part)
	}
	return c
}

func (a *app) nodeLocate() *cobra.Command {
	var length time.Duration
	c := a.commandTo("locate NODE", "have a node's LEDs blink", `Locate has the LEDs of the node blink in double flashes, and show afterwards what
they did before. Haloctl waits until they are done.`, cobra.ExactArgs(1), func([]string) (model.Command, error) {
		if length < time.Second || length%time.Second != 0 {
			return model.Command{}, fmt.Errorf("--for: expected whole seconds, 1s to %ds, got %s", model.LocateMaxSeconds, length)
		}
		return model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: int(length / time.Second)}}, nil
	}, nil)
	c.Flags().DurationVar(&length, "for", model.LocateSeconds*time.Second, "how long, at most ten minutes")
	return c
}

func (a *app) nodeOutput() *cobra.Command {
	return a.commandTo("set-output NODE OUTPUT on|off|PERCENT", "switch an output of a node", `Set-output switches an output of the node: one that its board file names (haloctl board
NODE shows them). An output that pulses takes per cent, such as 40.

An output goes to its safe state, off unless the board file says otherwise, when the
node has not reached the gateway for five minutes, and at each start.`, cobra.ExactArgs(3), func(args []string) (model.Command, error) {
		if p, err := strconv.ParseFloat(args[1], 64); err == nil {
			return model.Command{Kind: model.CommandSetOutput, Output: &model.OutputCommand{Output: args[0], On: true, Percent: &p}}, nil
		}
		if args[1] != "on" && args[1] != "off" {
			return model.Command{}, fmt.Errorf("expected on, off or per cent, got %q", args[1])
		}
		return model.Command{Kind: model.CommandSetOutput, Output: &model.OutputCommand{Output: args[0], On: args[1] == "on"}}, nil
	}, nil)
}

func (a *app) nodeDisplay() *cobra.Command {
	var label string
	var length time.Duration
	c := a.commandTo("display NODE [LINE]...", "have a display of a node show something", `Display has a display on the node's buses show lines for a while, in place of the node's
name, address, peers and battery; without lines it shows these again. haloctl sensor list
has the displays.`, cobra.MinimumNArgs(1), func(lines []string) (model.Command, error) {
		if length < time.Second || length%time.Second != 0 {
			return model.Command{}, fmt.Errorf("--for: expected whole seconds, 1s to %ds, got %s", model.DisplayMaxSeconds, length)
		}
		return model.Command{Kind: model.CommandDisplay, Display: &model.DisplayCommand{Display: label, Lines: lines, Seconds: int(length / time.Second)}}, nil
	}, nil)
	c.Example = `  haloctl node display mast "Maintenance" "until 18:00" --for 2h`
	c.Flags().StringVar(&label, "display", "", "`label` of the display, where the node has several")
	c.Flags().DurationVar(&length, "for", model.DisplaySeconds*time.Second, "how long, at most a day")
	return c
}

func (a *app) nodeReset() *cobra.Command {
	var yes bool
	var g giving
	c := a.ofNode("factory-reset NODE", "have a node forget its network and all that it has stored", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		n, err := c.Node(ctx, args[0])
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		if !yes {
			fmt.Fprintf(a.env.Stderr, "%s (%s) will lose its identity, its place in the network and what the gateway does not have of its readings. It comes back as a device without a network, which somebody has to stand before.\n", n.Name, n.ID)
			if err := a.confirm(ctx, "Is "+n.Name+" to forget all?"); err != nil {
				return err
			}
		}
		j, err := c.Command(ctx, n.ID, apitype.CreateCommand{Command: model.Command{Kind: model.CommandReset, Reset: &model.ResetCommand{Confirm: n.ID}}, ExpiresS: int64(g.expires / time.Second)})
		if err != nil {
			return a.cannot(err)
		}
		return a.followJob(ctx, c, j, g.noWait, nil)
	})
	c.Long = `Factory-reset has a node forget its identity, its network and all that it has
stored, at its next start, which follows at once. Its slots and release stay. At the
board it is done by the button or jumper that haloctl board shows, held for ten
seconds and then let go of. Revoke the node as well if it is not to come back.` + commandLong
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().DurationVar(&g.expires, "expires", 5*time.Minute, "how long it waits for a node that is off")
	c.Flags().BoolVar(&g.noWait, "no-wait", false, "do not wait for the outcome")
	return c
}

func (a *app) showScan(_ context.Context, _ *client.Client, j apitype.Job) error {
	var s model.RadioScan
	if err := json.Unmarshal(j.Result, &s); err != nil {
		return fmt.Errorf("expected what was found, got %.100q: %w", j.Result, err)
	}
	return a.show(j, func(w io.Writer) error { return writeScan(w, s) })
}

func (a *app) nodeCapture() *cobra.Command {
	var out string
	var length time.Duration
	var most int
	c := a.commandTo("capture NODE [RADIO]", "record what a radio of a node hears and sends", `Capture records frames, which then come through the mesh as a pcap with radiotap
headers. haloctl --node NODE mesh capture gets more, at the node's door.

What it holds is mostly encrypted, but tells who speaks with whom: only an admin
may ask for it, and events say that it was done.`, cobra.RangeArgs(1, 2), func(args []string) (model.Command, error) {
		switch {
		case out == "":
			return model.Command{}, errors.New("--out: expected a file for the capture, or - for standard output")
		case length < time.Second || length%time.Second != 0:
			return model.Command{}, fmt.Errorf("--for: expected whole seconds, 1s to %ds, got %s", model.CaptureMaxSeconds, length)
		}
		return model.Command{Kind: model.CommandCapture, Capture: &model.CaptureRequest{Radio: radioOf(args), Seconds: int(length / time.Second), Bytes: most}}, nil
	}, func(ctx context.Context, c *client.Client, j apitype.Job) error {
		return a.fetchFile(ctx, c, j.ID, out)
	})
	c.Flags().StringVar(&out, "out", "", "`file` to write, readable by you alone; - for standard output")
	c.Flags().DurationVar(&length, "for", model.CaptureSeconds*time.Second, "how long, at most a minute")
	c.Flags().IntVar(&most, "bytes", model.CommandCaptureBytes, "size of the file, at most 1 MiB")
	return c
}

func (a *app) nodeConfig() *cobra.Command {
	var sample, send, delay time.Duration
	var budget int64
	var position, rules string
	c := a.commandTo("config NODE", "show or change how often a node measures and sends, what of it, and where it is", `Config shows the settings of the node's halo-agent, or changes those that are
given; the agent then starts anew.`, cobra.ExactArgs(1), func([]string) (model.Command, error) {
		where, err := parsePosition(position)
		if err != nil {
			return model.Command{}, err
		}
		c := &model.AgentConfig{SampleS: sample.Seconds(), SendS: send.Seconds(), SpoolDelayS: delay.Seconds(), SpoolBudgetMiB: budget, Position: where}
		return model.Command{Kind: model.CommandConfig, Config: c}, a.readRules(rules, c)
	}, func(_ context.Context, _ *client.Client, j apitype.Job) error {
		var s model.AgentConfig
		if err := json.Unmarshal(j.Result, &s); err != nil {
			return fmt.Errorf("expected settings, got %.100q: %w", j.Result, err)
		}
		return a.show(j, func(w io.Writer) error {
			t := table.New()
			t.Row("Samples every", secondsOf(s.SampleS))
			t.Row("Batches every", secondsOf(s.SendS))
			t.Row("On disk after", secondsOf(s.SpoolDelayS)) // if not acknowledged
			t.Row("Spool", table.Bytes(s.SpoolBudgetMiB<<20))
			if p := s.Position; p != nil {
				t.Row("Position", place(model.Position{Source: model.PositionStatic, Lat: p.Lat, Lon: p.Lon, AltM: p.AltM}))
			}
			if s.Power != nil {
				t.Row("Power", powerWords(*s.Power))
			}
			var metrics []model.MetricRule
			if s.Metrics != nil {
				metrics = s.Metrics.Rules
			}
			return writeTables(w, []section{{1, t}, {len(metrics), rulesTable(metrics)}})
		})
	})
	c.Flags().DurationVar(&sample, "sample", 0, "`time` between two samples")
	c.Flags().DurationVar(&send, "send", 0, "`time` between two batches")
	c.Flags().DurationVar(&delay, "spool-delay", 0, "`time` until an unacknowledged reading is on disk")
	c.Flags().Int64Var(&budget, "spool-budget", 0, "`MiB` of disk for what is not acknowledged")
	c.Flags().StringVar(&position, "position", "", "where the node is while no GPS receiver knows: `LAT,LON[,ALT]` in degrees and metres, or none")
	c.Flags().StringVar(&rules, "rules", "", "`file` with [power] and [[metric]]: when the battery is low, what is sent of a metric, and its limits")
	return c
}

// parsePosition reads degrees north and east and metres above the sea; empty: nothing is
// to change.
func parsePosition(s string) (*model.ConfigPosition, error) {
	switch s {
	case "":
		return nil, nil
	case "none":
		return &model.ConfigPosition{None: true}, nil
	}
	parts := strings.Split(s, ",")
	var v []float64
	for _, p := range parts {
		if n, err := strconv.ParseFloat(strings.TrimSpace(p), 64); err == nil {
			v = append(v, n)
		}
	}
	if len(v) != len(parts) || len(v) < 2 || len(v) > 3 {
		return nil, fmt.Errorf("--position: expected LAT,LON or LAT,LON,ALT such as 48.1173,11.5167,520, or none, got %q", s)
	}
	p := &model.ConfigPosition{Lat: v[0], Lon: v[1]}
	if len(v) == 3 {
		p.AltM = &v[2]
	}
	return p, nil
}

func secondsOf(s float64) table.Cell { return table.In("s", "", s) }

func (a *app) nodeSpeedTest() *cobra.Command {
	var peer string
	var noWait bool
	c := a.ofNode("speedtest NODE", "measure what the overlay carries between a node and the gateway", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		j, err := c.SpeedTest(ctx, apitype.CreateSpeedTest{Node: args[0], Peer: peer})
		if err != nil {
			return a.cannot(err)
		}
		return a.followJob(ctx, c, j, noWait, func(_ context.Context, _ *client.Client, j apitype.Job) error {
			var r model.SpeedResult
			if err := json.Unmarshal(j.Result, &r); err != nil {
				return fmt.Errorf("expected what was measured, got %.100q: %w", j.Result, err)
			}
			return a.show(j, func(w io.Writer) error {
				t := table.New()
				t.Row("Latency", table.In("ms", "%.1f", r.LatencyMS))
				ways := table.New("WAY", "SPEED", "SENT", "TOOK", "CUT SHORT")
				for _, d := range []struct {
					name string
					model.SpeedWay
				}{{"down", r.Down}, {"up", r.Up}} {
					ways.Row(d.name, table.In("Mbit/s", "%.2f", d.Mbps), table.Bytes(d.Bytes), table.In("s", "%.1f", d.Seconds), d.Cut)
				}
				return writeTables(w, []section{{1, t}, {1, ways}})
			})
		})
	})
	c.Long = `Speedtest sends 2 MB to the node and 1 MB from it, or what 15 s carry where the
link is slow. With --peer the way to another node is measured. Tests are made one
after the other in the whole network, as a mesh shares its channel.`
	c.Flags().StringVar(&peer, "peer", "", "another `node` in place of the gateway")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the outcome")
	return c
}

func (a *app) speedTestCommand() *cobra.Command {
	var node string
	var limit int
	list := a.call("list", "what was measured, newest last", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		tests, err := c.SpeedTests(ctx, node, limit)
		if err != nil {
			return err
		}
		slices.Reverse(tests)
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[apitype.SpeedTest]{tests}, func(w io.Writer) error {
			t := table.New("JOB", "NODE", "PEER", "WHEN", "DOWN", "UP", "LATENCY", "STATE")
			for _, s := range tests {
				var down, up, latency table.Cell
				if r := s.Result; r != nil {
					down, up, latency = table.In("Mbit/s", "%.2f", r.Down.Mbps), table.In("Mbit/s", "%.2f", r.Up.Mbps), table.In("ms", "%.1f", r.LatencyMS)
				}
				state := s.State
				if d := jobDetail(apitype.Job{State: s.State, Code: s.Code, Message: s.Text}); d != "" {
					state += ": " + d
				}
				t.Row(strconv.FormatInt(s.Job, 10), nameOf(names, s.Node), nameOf(names, s.Peer), table.Age(c.Now(), s.Time), down, up, latency, state)
			}
			return t.Write(w)
		})
	})
	list.Flags().StringVar(&node, "node", "", "only measured by this `node`")
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	return group("speed-test", "what the overlay carries (haloctl node speedtest measures it)", list)
}

func (a *app) nodeCapabilities(ctx context.Context, c *client.Client, args []string) error {
	can, err := c.NodeCapabilities(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(can, func(w io.Writer) error {
		if !can.Known {
			a.say("The node has not said yet what it can do: it is off, or its release takes no commands.")
			return nil
		}
		t := table.New("COMMAND", "CAN", "WHY NOT")
		for _, i := range can.Items {
			why := ""
			if i.Code != "" {
				why = i.Code + ": " + i.Text
			}
			t.Row(i.Kind, i.Code == "", why)
		}
		return t.Write(w)
	})
}
