package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/lab/bus"
	"halo.internal/lab/bus/nmea"
	"halo.internal/lab/control"
)

const busLong = `Bus shows the chips on the machines' I2C buses and what they measure. Its commands
change that, and let chips fail, while machines run.

A CHIP is named by its kind, such as bme280, or where a machine has several of it as
kind@address or kind@bus/address, such as ina219@0x41.`

func (a *app) busCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "bus", Short: "show the chips on I2C buses; set what they measure, unplug them, let them fail", Long: busLong, Args: cobra.NoArgs,
		RunE: a.lab(func(ctx context.Context, lab *control.Client, _ []string) error {
			d, err := lab.Devices(ctx)
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) error { return chipTable(w, d) })
		}),
	}
	c.AddCommand(a.busSetCommand(), a.plugCommand("plug", "put a chip's cable back", true), a.plugCommand("unplug", "pull a chip's cable out: it forgets its settings", false), a.busFaultCommand(), a.stickCommand(), a.loseCommand(), a.screenCommand())
	return c
}

// change makes a change and says so.
func (a *app) change(ctx context.Context, lab *control.Client, machine string, c bus.Change, format string, args ...any) error {
	if err := lab.ChangeDevice(ctx, control.DeviceChange{Machine: machine, Change: c}); err != nil {
		return err
	}
	return a.done(format, args...)
}

func (a *app) busSetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set MACHINE CHIP NAME=NUMBER …", Short: "set what a chip measures", Args: cobra.MinimumNArgs(3),
		Example: "  halo-lab bus set node1 bme280 temperature=31.5 humidity=80\n  halo-lab bus set node1 ina219 current=-0.4",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			values, err := numbers(args[2:])
			if err != nil {
				return err
			}
			return a.change(ctx, lab, args[0], bus.Change{Chip: &bus.ChipChange{Chip: args[1], Values: values}}, "bus set: %s of %s: %s", args[1], args[0], strings.Join(args[2:], " "))
		}),
	}
}

func (a *app) screenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "screen MACHINE", Short: "show what a machine's displays show", Args: cobra.ExactArgs(1),
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			d, err := lab.Devices(ctx)
			if err != nil {
				return err
			}
			return screens(a.env.Stdout, d, args[0])
		}),
	}
}

// screens draws the displays of a machine.
func screens(w io.Writer, d control.Devices, machine string) error {
	found := false
	for _, m := range d.Machines {
		for _, c := range m.Chips {
			if m.Machine != machine || c.Picture == nil {
				continue
			}
			found = true
			if _, err := fmt.Fprintf(w, "%s\n%s\n", c.Name, strings.Join(c.Picture, "\n")); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("%s has no display: halo-lab bus shows the chips", machine)
	}
	return nil
}

// numbers reads words such as temperature=31.5.
func numbers(words []string) (map[string]float64, error) {
	values := map[string]float64{}
	for _, word := range words {
		name, text, ok := strings.Cut(word, "=")
		v, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("expected a name and a number such as temperature=31.5, got %q", word)
		}
		values[name] = v
	}
	return values, nil
}

func (a *app) plugCommand(use, short string, plugged bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " MACHINE CHIP", Short: short, Args: cobra.ExactArgs(2),
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			return a.change(ctx, lab, args[0], bus.Change{Chip: &bus.ChipChange{Chip: args[1], Plugged: &plugged}}, "bus %s: %s of %s", use, args[1], args[0])
		}),
	}
}

func (a *app) busFaultCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fault MACHINE CHIP FAULT …", Short: "let a chip fail: nak, identity, slow=50ms; none ends that", Args: cobra.MinimumNArgs(3),
		Long:    "Fault sets all that is wrong with a chip: nak, it does not acknowledge; identity, it\nsays that it is another chip; slow=TIME, each of its transactions takes so much\nlonger; none.",
		Example: "  halo-lab bus fault node1 bme280 nak\n  halo-lab bus fault node1 lm75 slow=200ms\n  halo-lab bus fault node1 bme280 none",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			f, err := fault(args[2:])
			if err != nil {
				return err
			}
			return a.change(ctx, lab, args[0], bus.Change{Chip: &bus.ChipChange{Chip: args[1], Fault: &f}}, "bus fault: %s of %s: %s", args[1], args[0], strings.Join(args[2:], " "))
		}),
	}
}

func fault(words []string) (f bus.Fault, err error) {
	for _, word := range words {
		name, text, _ := strings.Cut(word, "=")
		switch {
		case word == "nak":
			f.NAK = true
		case word == "identity":
			f.Identity = true
		case name == "slow":
			d, err := time.ParseDuration(text)
			if err != nil {
				return f, fmt.Errorf("slow: expected a time such as slow=50ms, got %q", word)
			}
			f.SlowMS = d.Milliseconds()
		case word == "none" && len(words) == 1:
		default:
			return f, fmt.Errorf("fault: expected nak, identity, slow=TIME or none, got %q", word)
		}
	}
	return f, nil
}

func (a *app) stickCommand() *cobra.Command {
	var number int
	c := &cobra.Command{
		Use: "stick MACHINE on|off", Short: "have no transaction of a bus answered, until it is off", Args: cobra.ExactArgs(2),
		Long: "Stick holds all transactions of a bus back, as a line does that is held down. A\nprogram of the machine that waits for one cannot even be killed before it is off.",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			on, err := switched(args[1])
			if err != nil {
				return err
			}
			return a.change(ctx, lab, args[0], bus.Change{Bus: &bus.BusChange{Bus: number, Stuck: &on}}, "bus stick: bus %d of %s: %s", number, args[0], args[1])
		}),
	}
	c.Flags().IntVar(&number, "bus", 0, "`number` of the bus")
	return c
}

func switched(word string) (bool, error) {
	switch word {
	case "on", "1", "high":
		return true, nil
	case "off", "0", "low":
		return false, nil
	}
	return false, fmt.Errorf("expected on or off, got %q", word)
}

func (a *app) loseCommand() *cobra.Command {
	var number int
	c := &cobra.Command{
		Use: "lose MACHINE NUMBER", Short: "let so many transactions of a bus fail, as noise does", Args: cobra.ExactArgs(2),
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return fmt.Errorf("expected a number of transactions, got %q", args[1])
			}
			return a.change(ctx, lab, args[0], bus.Change{Bus: &bus.BusChange{Bus: number, Lose: &n}}, "bus lose: %d transactions of bus %d of %s", n, number, args[0])
		}),
	}
	c.Flags().IntVar(&number, "bus", 0, "`number` of the bus")
	return c
}

func (a *app) gpioCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "gpio", Short: "show the machines' GPIO lines; press buttons", Args: cobra.NoArgs,
		RunE: a.lab(func(ctx context.Context, lab *control.Client, _ []string) error {
			d, err := lab.Devices(ctx)
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) error { return lineTable(w, d) })
		}),
	}
	c.AddCommand(&cobra.Command{
		Use: "set MACHINE LINE high|low", Short: "give a line a level that the machine does not drive", Args: cobra.ExactArgs(3),
		Example: "  halo-lab gpio set node1 DOOR high",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			high, err := switched(args[2])
			if err != nil {
				return fmt.Errorf("expected high or low, got %q", args[2])
			}
			return a.change(ctx, lab, args[0], bus.Change{Line: &bus.LineChange{Line: args[1], High: high}}, "gpio set: %s of %s is %s", args[1], args[0], args[2])
		}),
	})
	var hold time.Duration
	press := &cobra.Command{
		Use: "press MACHINE LINE", Short: "press a button: the line is high for a while", Args: cobra.ExactArgs(2),
		Example: "  halo-lab gpio press node1 BUTTON --hold 5s",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			level := func(ctx context.Context, high bool) error {
				return lab.ChangeDevice(ctx, control.DeviceChange{Machine: args[0], Change: bus.Change{Line: &bus.LineChange{Line: args[1], High: high}}})
			}
			if err := level(ctx, true); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(hold):
			}
			// Interrupted or not: nobody's finger stays on it.
			if err := errors.Join(level(context.WithoutCancel(ctx), false), ctx.Err()); err != nil {
				return err
			}
			return a.done("gpio press: %s of %s, for %s", args[1], args[0], hold)
		}),
	}
	press.Flags().DurationVar(&hold, "hold", 200*time.Millisecond, "`time` for which it is pressed")
	c.AddCommand(press)
	return c
}

func (a *app) gpsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "gps", Short: "show the machines' GPS receivers; move them, take their sky away", Args: cobra.NoArgs,
		RunE: a.lab(func(ctx context.Context, lab *control.Client, _ []string) error {
			d, err := lab.Devices(ctx)
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) error { return gpsTable(w, d) })
		}),
	}
	c.AddCommand(&cobra.Command{
		Use: "set MACHINE NAME=VALUE …", Short: "set what a receiver sees, and what is wrong with it", Args: cobra.MinimumNArgs(2),
		Long: `Set changes a receiver: lat, lon (degrees), alt (m), speed (m/s), course (degrees),
turn (degrees a second), rate (fixes a second), ahead (seconds of the host's time),
fix (none, 2d, 3d), noise (on, off: octets at random), silent (on, off: its cable).`,
		Example: "  halo-lab gps set node1 lat=46.95 lon=7.44 speed=14 turn=0\n  halo-lab gps set node1 fix=none",
		RunE: a.lab(func(ctx context.Context, lab *control.Client, args []string) error {
			g, err := receiver(args[1:])
			if err != nil {
				return err
			}
			return a.change(ctx, lab, args[0], bus.Change{GPS: &g}, "gps set: %s: %s", args[0], strings.Join(args[1:], " "))
		}),
	})
	return c
}

// receiver reads what is to change of a GPS receiver.
func receiver(words []string) (c nmea.Change, err error) {
	to := map[string]**float64{"lat": &c.Lat, "lon": &c.Lon, "alt": &c.Alt, "speed": &c.Speed, "course": &c.Course, "turn": &c.Turn, "ahead": &c.Ahead}
	for _, word := range words {
		name, text, _ := strings.Cut(word, "=")
		switch name {
		case "fix":
			f := nmea.Fix(text)
			c.Fix = &f
		case "noise", "silent":
			on, err := switched(text)
			if err != nil {
				return c, fmt.Errorf("%s: %w", name, err)
			}
			if name == "noise" {
				c.Noise = &on
			} else {
				c.Silent = &on
			}
		case "rate":
			n, err := strconv.Atoi(text)
			if err != nil {
				return c, fmt.Errorf("rate: expected fixes a second, got %q", text)
			}
			c.RateHz = &n
		default:
			p, ok := to[name]
			if !ok {
				return c, fmt.Errorf("expected one of %s, fix, noise, rate, silent, got %q", strings.Join(slices.Sorted(maps.Keys(to)), ", "), word)
			}
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return c, fmt.Errorf("%s: expected a number, got %q", name, text)
			}
			*p = &v
		}
	}
	return c, nil
}

func chipTable(w io.Writer, d control.Devices) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tCHIP\tMEASURES\tTRANSACTIONS\tFAULT")
	for _, m := range d.Machines {
		for _, c := range m.Chips {
			var values, wrong []string
			for _, v := range c.Values {
				values = append(values, fmt.Sprintf("%s=%v %s", v.Name, v.Number, v.Unit))
			}
			if !c.Plugged {
				wrong = append(wrong, "unplugged")
			}
			if c.Fault.NAK {
				wrong = append(wrong, "nak")
			}
			if c.Fault.Identity {
				wrong = append(wrong, "identity")
			}
			if c.Fault.SlowMS > 0 {
				wrong = append(wrong, fmt.Sprintf("slow=%dms", c.Fault.SlowMS))
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", m.Machine, c.Name, dash(values), c.Transactions, dash(wrong))
		}
		for _, b := range m.Buses {
			if b.Stuck {
				fmt.Fprintf(t, "%s\tbus %d\tis stuck\t%d\t\n", m.Machine, b.Bus, b.Transactions)
			}
		}
	}
	return t.Flush()
}

func dash(words []string) string {
	if words == nil {
		return "-"
	}
	return strings.Join(words, ", ")
}

func lineTable(w io.Writer, d control.Devices) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tLINE\tDIRECTION\tLEVEL\tCHANGES")
	for _, m := range d.Machines {
		for _, l := range m.Lines {
			level := "low"
			if l.High {
				level = "high"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", m.Machine, l.Line, l.Direction, level, l.Changes)
		}
	}
	return t.Flush()
}

func gpsTable(w io.Writer, d control.Devices) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tFIX\tLATITUDE\tLONGITUDE\tALTITUDE\tSPEED\tCOURSE\tSENT\tFAULT")
	for _, m := range d.Machines {
		if m.GPS == nil {
			continue
		}
		g := m.GPS
		wrong := "-"
		switch {
		case g.Silent:
			wrong = "silent"
		case g.Noise:
			wrong = "noise"
		}
		fmt.Fprintf(t, "%s\t%s\t%.6f\t%.6f\t%.0f m\t%.1f m/s\t%.0f°\t%d\t%s\n", m.Machine, g.Fix, g.Lat, g.Lon, g.Alt, g.Speed, g.Course, g.Sent, wrong)
	}
	return t.Flush()
}
