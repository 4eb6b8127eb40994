package lab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/air"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/air/rogue"
	"halo.internal/lab/control"
	"halo.internal/model/dot11"
)

const airLong = `Air shows the simulated radios, where they are and how well each hears the others.
Its commands change that while machines run.

A NAME is that of a machine, for all of its radios, or that of one radio. Places
are in metres. Signals fade with the third power of the distance, as outdoors with
obstacles: at 50 m Wi-Fi is fast, at 150 m slow, at 300 m gone.`

func (a *app) airCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "air", Short: "show radios and who hears whom; move, cut off and jam them", Long: airLong, Args: cobra.NoArgs,
		RunE: a.lab(func(ctx context.Context, lab *control.Client, _ []string) error {
			s, err := lab.Air(ctx)
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) error { return airTable(w, s) })
		}),
	}
	c.AddCommand(a.moveCommand(), a.cutCommand(), a.airHealCommand(), a.lossCommand(), a.disorderCommand(), a.radioCommand("unplug", "take a machine's radio out, also over its restarts"), a.radioCommand("plug", "put it back"), a.radioCommand("wedge", "have its driver hang until the radio is restarted"), a.jamCommand(), a.rogueCommand(), a.captureCommand())
	return c
}

// lab is a command that speaks to the lab.
func (a *app) lab(do func(context.Context, *control.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := control.Dial(a.dir)
		if err != nil {
			return err
		}
		return do(c.Context(), client, args)
	}
}

func (a *app) moveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "move NAME X Y [Z]", Short: "give a machine another place, in metres", Args: cobra.RangeArgs(3, 4),
		Example: "  halo-lab air move node1 120 0\n  halo-lab air move node1 -- -120 0 15",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			at, err := place(args[1:])
			if err != nil {
				return err
			}
			if err := lab.Move(ctx, control.Place{Name: args[0], At: at}); err != nil {
				return err
			}
			return a.done("air move: %s is at %s", args[0], where(at))
		}),
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w; numbers below zero go behind --, as in: air move node1 -- -120 0", err)
	})
	return c
}

// place reads two or three coordinates.
func place(args []string) (p physics.Position, err error) {
	if len(args) < 2 || len(args) > 3 {
		return p, fmt.Errorf("place: expected X, Y and perhaps Z, got %d numbers", len(args))
	}
	for i, v := range []*float64{&p.X, &p.Y, &p.Z}[:len(args)] {
		if *v, err = strconv.ParseFloat(args[i], 64); err != nil {
			return p, fmt.Errorf("place: expected metres such as 120 or -7.5, got %q", args[i])
		}
	}
	return p, nil
}

func (a *app) cutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cut A B", Short: "let nothing pass between two any more", Args: cobra.ExactArgs(2),
		Example: "  halo-lab air cut gateway node2",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			if err := lab.Cut(ctx, control.Cut{A: args[0], B: args[1], Cut: true}); err != nil {
				return err
			}
			return a.done("air cut: nothing passes between %s and %s", args[0], args[1])
		}),
	}
}

func (a *app) airHealCommand() *cobra.Command {
	return &cobra.Command{
		Use: "heal [A B]", Short: "end all cuts, or that between two", Long: "Heal ends all cuts, or that between two. Losses, disorder and a partition stay:\nloss A B 0, disorder A B and halo-lab heal end those.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return fmt.Errorf("expected no name or two, got %d", len(args))
			}
			return nil
		},
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			if len(args) == 0 {
				if err := lab.Restore(ctx); err != nil {
					return err
				}
				return a.done("air heal: no pair is cut")
			}
			if err := lab.Cut(ctx, control.Cut{A: args[0], B: args[1]}); err != nil {
				return err
			}
			return a.done("air heal: %s and %s are not cut", args[0], args[1])
		}),
	}
}

func (a *app) lossCommand() *cobra.Command {
	return &cobra.Command{
		Use: "loss A B PERCENT", Short: "lose some of the attempts between two, besides what distance loses", Args: cobra.ExactArgs(3),
		Example: "  halo-lab air loss node1 node2 30\n  halo-lab air loss node1 node2 0",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			percent, err := strconv.ParseFloat(strings.TrimSuffix(args[2], "%"), 64)
			if err != nil {
				return fmt.Errorf("loss: expected percent such as 30, got %q", args[2])
			}
			if err := lab.SetLoss(ctx, control.Loss{A: args[0], B: args[1], Loss: percent / 100}); err != nil {
				return err
			}
			return a.done("air loss: %.3g%% between %s and %s", percent, args[0], args[1])
		}),
	}
}

// radioCommand does something to a machine's radios.
func (a *app) radioCommand(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			if err := lab.Radio(ctx, control.RadioFault{Name: args[0], Fault: use}); err != nil {
				return err
			}
			return a.done("air %s: %s", use, args[0])
		}),
	}
}

const disorderLong = `Disorder lets management frames between two, such as those of authentication and
peering, come twice or late: with the Retry bit at once, as after an
acknowledgement that was lost, which the kernel finds out where there is a link;
without it a moment later, which nothing but the protocols finds out; or held
back, so that later ones overtake. Beacons and data are left alone. What is not
given does not happen, so that without flags the order is restored.`

func (a *app) disorderCommand() *cobra.Command {
	var retransmitted, replayed, late float64
	var delay time.Duration
	c := &cobra.Command{
		Use: "disorder A B", Short: "let management frames between two come twice or late", Long: disorderLong, Args: cobra.ExactArgs(2),
		Example: "  halo-lab air disorder node1 node2 --replayed 20 --late 20\n  halo-lab air disorder node1 node2",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			d := air.Disorder{Retransmitted: retransmitted / 100, Replayed: replayed / 100, Late: late / 100}
			if d.Replayed != 0 || d.Late != 0 {
				d.Delay = delay
			}
			if err := lab.SetDisorder(ctx, control.Disorder{A: args[0], B: args[1], Disorder: d}); err != nil {
				return err
			}
			return a.done("air disorder: between %s and %s %s", args[0], args[1], cmp.Or(describeDisorder(d), "none"))
		}),
	}
	f := c.Flags()
	f.Float64Var(&retransmitted, "retransmitted", 0, "`percent` that comes again at once, with the Retry bit")
	f.Float64Var(&replayed, "replayed", 0, "`percent` that comes again within the delay, without the Retry bit")
	f.Float64Var(&late, "late", 0, "`percent` that is held back within the delay")
	f.DurationVar(&delay, "delay", 50*time.Millisecond, "`time` at most, drawn for each frame")
	return c
}

const off = "off"

func (a *app) jamCommand() *cobra.Command {
	var raise, power float64
	var at string
	var channel int
	c := &cobra.Command{
		Use: "jam [off]", Short: "raise the noise, everywhere or from a place", ValidArgs: []string{off}, Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		Long:    "Jam raises the noise of all receivers by --raise, or with --at sends noise from a\nplace. It keeps nobody from sending. Each channel has one jammer, and what holds\nfor all channels is one more. Off ends that of --channel, or all.",
		Example: "  halo-lab air jam --raise 20\n  halo-lab air jam --at 25,0 --power 10 --channel 6\n  halo-lab air jam off",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			freq, err := frequency(channel)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if err := lab.Quiet(ctx, control.Quiet{FreqMHz: freq}); err != nil {
					return err
				}
				return a.done("air jam: off on %s", onChannel(freq))
			}
			j := air.Jammer{FreqMHz: freq, RaiseDB: raise}
			if at != "" {
				p, err := place(strings.Split(at, ","))
				if err != nil {
					return fmt.Errorf("--at: %w", err)
				}
				j.RaiseDB, j.At, j.PowerDBm = 0, &p, power
			}
			if err := lab.Jam(ctx, j); err != nil {
				return err
			}
			return a.done("air jam: %s", describeJammer(j))
		}),
	}
	f := c.Flags()
	f.Float64Var(&raise, "raise", 20, "`dB` by which the noise of all receivers is raised")
	f.StringVar(&at, "at", "", "`place` of a jammer, X,Y or X,Y,Z, instead")
	f.Float64Var(&power, "power", 20, "its power in `dBm`")
	f.IntVar(&channel, "channel", 0, "`number` of the channel; 0 is all")
	c.MarkFlagsMutuallyExclusive("raise", "at")
	return c
}

// frequency returns the middle of a channel in MHz; of 0 it is 0.
func frequency(channel int) (int, error) {
	freq := dot11.ChannelMHz(channel)
	if freq == 0 && channel != 0 {
		return 0, fmt.Errorf("--channel: expected 1 to 14, or one of 5 GHz (36 to 177), got %d", channel)
	}
	return freq, nil
}

func (a *app) rogueCommand() *cobra.Command {
	var at string
	var rate int
	var attacks []string
	for _, r := range rogue.Attacks() {
		attacks = append(attacks, string(r))
	}
	c := &cobra.Command{
		Use: "rogue " + strings.Join(attacks, "|") + "|off", Short: "let a stranger's radio attack the network", Args: cobra.ExactArgs(1),
		ValidArgs: append(attacks, off),
		Long: `Rogue puts a stranger's radio into the air, which knows no secret of the network
and forges what it can. Commits come from made-up addresses and in each other's
name, to all whom it hears; so do beacons of the mesh, to which those in members'
names add lies.

  commits                 SAE Commits
  beacons                 of the mesh; another channel, RSN, no room, ...
  opens, confirms, closes Mesh Peering frames between members, with link IDs and
                          PMKIDs as overheard or random, under wrong keys
  deauth                  Deauthentications and Disassociations between members
  replay                  what it heard, again
  all                     each of these in turn
  channel-switch          beacons that call the mesh to another channel; members
                          follow, and come back: the mesh works little until it ends`,
		Example: "  halo-lab air rogue all --rate 200\n  halo-lab air rogue off",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			if args[0] == off {
				if err := lab.StopRogue(ctx); err != nil {
					return err
				}
				return a.done("air rogue: off")
			}
			p, err := place(strings.Split(at, ","))
			if err != nil {
				return fmt.Errorf("--at: %w", err)
			}
			if err := lab.StartRogue(ctx, control.Stranger{Attack: rogue.Attack(args[0]), PerSecond: rate, At: p}); err != nil {
				return err
			}
			return a.done("air rogue: %s from %s, %d frames a second at most", args[0], where(p), rate)
		}),
	}
	c.Flags().StringVar(&at, "at", "25,25", "its `place`, X,Y or X,Y,Z")
	c.Flags().IntVar(&rate, "rate", 100, "`frames` a second at most")
	return c
}

func (a *app) captureCommand() *cobra.Command {
	return &cobra.Command{
		Use: "capture FILE|off", Short: "record all frames in the air, with radiotap headers", Args: cobra.ExactArgs(1),
		Example: "  halo-lab air capture air.pcap\n  halo-lab air capture off",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			if args[0] == off {
				if err := lab.StopCapture(ctx); err != nil {
					return err
				}
				return a.done("air capture: off")
			}
			path, err := filepath.Abs(args[0]) // the lab has a folder of its own
			if err == nil {
				err = lab.StartCapture(ctx, path)
			}
			if err != nil {
				return err
			}
			return a.done("air capture: to %s, until: %s air capture off", path, a.env.Name)
		}),
	}
}
