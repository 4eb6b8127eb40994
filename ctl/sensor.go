package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/drivers/i2c"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

const sensorLong = `A sensor is a chip on an I2C bus of a node. Nodes look for them at the start and each
minute: what is known beyond doubt is read, what may be several things is offered,
and a person says what it is. SENSOR is its ID as sensor list has it:
BUS-ADDRESS@NODE, such as fe804000.i2c-76@mast.

With --local, list and show are about the device that haloctl runs on.`

func (a *app) sensorCommand() *cobra.Command {
	c := group("sensor", "chips on nodes' buses: what they are, and templates that read them",
		a.sensorList(), a.sensorShow(), a.sensorAssign(), a.sensorName(), a.sensorTry(), a.sensorLint(), a.templateCommand(),
		a.sensorJob("forget SENSOR", "forget what was said of a sensor, and that it was there", func(ctx context.Context, c *client.Client, id string) (apitype.Job, error) {
			return c.ForgetSensor(ctx, id)
		}),
		a.sensorJob("scan NODE", "have a node look for chips at once", func(ctx context.Context, c *client.Client, node string) (apitype.Job, error) {
			return c.ScanSensors(ctx, node)
		}),
		a.ofNode("inventory NODE", "what is on a node's buses: buses, sensors, and templates of people's", cobra.ExactArgs(1), a.sensorInventory),
	)
	c.Long = sensorLong
	return c
}

// sensorIDs completes IDs of sensors.
func (a *app) sensorIDs(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Sensors(ctx, "", "")
	var ids []string
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids, err
}

// ofSensor is a call whose first argument is a sensor.
func (a *app) ofSensor(use, short string, args cobra.PositionalArgs, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return a.completes(a.call(use, short, args, run), a.sensorIDs)
}

func (a *app) sensorJob(use, short string, run func(context.Context, *client.Client, string) (apitype.Job, error)) *cobra.Command {
	var noWait bool
	c := a.call(use, short, cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		j, err := run(ctx, c, args[0])
		if err != nil {
			return a.cannot(err)
		}
		return a.followJob(ctx, c, j, noWait, nil)
	})
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the outcome")
	return c
}

// own is what the device's own halo-agent says.
func (a *app) own(ctx context.Context) (model.AgentStatus, error) {
	return local.NewAgent(filepath.Join(filepath.Dir(a.env.MeshSocket), filepath.Base(paths.AgentSocket))).Status(ctx)
}

func (a *app) sensorList() *cobra.Command {
	var node, state string
	c := a.call("list", "all sensors", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		list, err := c.Sensors(ctx, node, state)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		return a.show(items[apitype.Sensor]{list}, func(w io.Writer) error { return writeSensors(w, list) })
	})
	c.Flags().StringVar(&node, "of", "", "those of one `node`")
	c.Flags().StringVar(&state, "state", "", "those in one `state`: ok, offered, gone, failed or ignored")
	return a.orHere(c, func(ctx context.Context) error {
		st, err := a.own(ctx)
		if err != nil {
			return err
		}
		list := []apitype.Sensor{}
		if st.Inventory != nil {
			for _, s := range st.Inventory.Sensors {
				list = append(list, apitype.Sensor{ID: s.Key(), NodeName: "here", Online: true, SensorChip: s})
			}
		}
		return a.show(items[apitype.Sensor]{list}, func(w io.Writer) error { return writeSensors(w, list) })
	}, nil)
}

// orHere has a command of the gateway's be about the device itself with --local.
func (a *app) orHere(c *cobra.Command, here func(context.Context) error, hereOf func(context.Context, string) error) *cobra.Command {
	ofGateway := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case !a.here:
			return ofGateway(c, args)
		case len(args) > 0:
			return hereOf(c.Context(), args[0])
		}
		return here(c.Context())
	}
	return c
}

func writeSensors(w io.Writer, list []apitype.Sensor) error {
	t := table.New("SENSOR", "NODE", "STATE", "CHIP", "LABEL", "NAME", "EVERY", "PROBLEM").Wide(7)
	for _, s := range list {
		state, chip := string(s.State), s.Chip
		if !s.Online {
			state += ", node is off"
		}
		if s.State == model.SensorOffered {
			chip = "? " + strings.Join(s.Candidates, ", ")
		}
		var every table.Cell
		if s.IntervalS > 0 {
			every = table.In("s", "", s.IntervalS)
		}
		t.Row(s.ID, s.NodeName, state, chip, s.Label, s.Name, every, s.Problem)
	}
	return t.Write(w)
}

func (a *app) sensorShow() *cobra.Command {
	c := a.ofSensor("show SENSOR", "a sensor, and what it measured last", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		s, err := c.Sensor(ctx, args[0])
		if err != nil {
			return notFound(err, "haloctl sensor list shows the sensors")
		}
		return a.show(s, func(w io.Writer) error { return writeSensor(w, s) })
	})
	return a.orHere(c, nil, func(ctx context.Context, key string) error {
		st, err := a.own(ctx)
		if err != nil {
			return err
		}
		if st.Inventory != nil {
			for _, s := range st.Inventory.Sensors {
				if s.Key() != key {
					continue
				}
				d := apitype.SensorDetail{Sensor: apitype.Sensor{ID: key, NodeName: "here", Online: true, SensorChip: s}}
				for _, r := range st.Readings {
					if strings.HasPrefix(r.Metric, "i2c."+s.Label+".") {
						d.Readings = append(d.Readings, apitype.Reading{Metric: r.Metric, Value: r.Value, Unit: r.Unit, Time: st.Time})
					}
				}
				return a.show(d, func(w io.Writer) error { return writeSensor(w, d) })
			}
		}
		return &hintError{fmt.Errorf("there is no sensor %q here", key), "haloctl --local sensor list shows the sensors"}
	})
}

func writeSensor(w io.Writer, s apitype.SensorDetail) error {
	t := table.New()
	t.Row("Sensor", s.ID)
	t.Row("Node", s.NodeName)
	t.Row("Bus", strings.TrimSpace(s.Bus+" "+s.BusName))
	t.Row("Address", fmt.Sprintf("%#02x", s.Address))
	t.Row("State", s.State)
	if s.Problem != "" {
		t.Row("Problem", s.Problem)
	}
	if s.Chip != "" {
		said := "recognised"
		if s.Assigned {
			said = "as a person has said"
		}
		t.Row("Chip", strings.TrimSpace(s.Chip+"  "+s.Title)+" ("+said+")")
		t.Row("Label", s.Label)
		t.Row("Every", secondsOf(s.IntervalS))
	}
	if len(s.Candidates) > 0 {
		t.Row("May be", strings.Join(s.Candidates, ", "))
	}
	if s.Name != "" {
		t.Row("Name", s.Name)
	}
	if s.Place != "" {
		t.Row("Place", s.Place)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Params)) {
		t.Row(k, table.Value(s.Params[k]))
	}
	values := table.New("VALUE", "LATEST", "METRIC", "POWER")
	for _, v := range s.Values {
		latest := ""
		for _, r := range s.Readings {
			if r.Metric == v.Metric {
				latest = strings.TrimSpace(strconv.FormatFloat(r.Value, 'f', -1, 64) + " " + v.Unit)
			}
		}
		values.Row(v.Title, latest, v.Metric, v.Power)
	}
	outputs := table.New("OUTPUT", "TITLE", "FROM", "TO", "SAFE")
	for _, o := range s.Outputs {
		outputs.Row(o.Name, o.Title, table.Value(o.Min), table.Value(o.Max), table.Value(o.Safe))
	}
	return writeTables(w, []section{{1, t}, {len(s.Values), values}, {len(s.Outputs), outputs}})
}

// params reads NAME=NUMBER of flags.
func params(list []string) (map[string]float64, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := map[string]float64{}
	for _, p := range list {
		name, text, ok := strings.Cut(p, "=")
		n, err := strconv.ParseFloat(text, 64)
		if !ok || name == "" || err != nil {
			return nil, &usageError{fmt.Errorf("--param: expected NAME=NUMBER such as shunt_ohm=0.01, got %q", p)}
		}
		out[name] = n
	}
	return out, nil
}

func (a *app) sensorAssign() *cobra.Command {
	var label string
	var every, expires time.Duration
	var given []string
	var noWait bool
	c := a.ofSensor("assign SENSOR CHIP", "say which chip a sensor is", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
		p, err := params(given)
		if err != nil {
			return err
		}
		j, err := c.AssignSensor(ctx, args[0], apitype.AssignSensor{Chip: args[1], Label: label, IntervalS: every.Seconds(), Params: p, ExpiresS: int(expires / time.Second)})
		if err != nil {
			return a.cannot(err)
		}
		return a.followJob(ctx, c, j, noWait, nil)
	})
	c.Long = `Assign says which chip a sensor is: what a person says wins over what is recognised,
and is remembered by the node, by bus and address. CHIP is a template, such as
bme280, or none to have the address left alone. haloctl sensor template list shows
the templates. A sensor that is in no list may be named too, by its bus and address.`
	c.Flags().StringVar(&label, "label", "", "second `word` of its metrics, i2c.LABEL.…")
	c.Flags().DurationVar(&every, "every", 0, "`time` between two readings; as the template says where nothing is said")
	c.Flags().StringArrayVar(&given, "param", nil, "what depends on its wiring: `NAME=NUMBER`, such as shunt_ohm=0.01")
	c.Flags().DurationVar(&expires, "expires", 5*time.Minute, "how long it waits for a node that is off")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the outcome")
	return c
}

func (a *app) sensorName() *cobra.Command {
	var name, place string
	c := a.ofSensor("name SENSOR", "give a sensor a name, or say where it is", cobra.ExactArgs(1), nil)
	c.RunE = a.call("", "", cobra.ExactArgs(1), func(ctx context.Context, cl *client.Client, args []string) error {
		var u apitype.UpdateSensor
		if c.Flags().Changed("name") {
			u.Name = &name
		}
		if c.Flags().Changed("place") {
			u.Place = &place
		}
		if u == (apitype.UpdateSensor{}) {
			return &usageError{errors.New("expected --name or --place")}
		}
		s, err := cl.UpdateSensor(ctx, args[0], u)
		if err != nil {
			return notFound(err, "haloctl sensor list shows the sensors")
		}
		return a.show(s, func(io.Writer) error {
			a.say("%s is called %q, at %q.", s.ID, s.Name, s.Place)
			return nil
		})
	}).RunE
	c.Flags().StringVar(&name, "name", "", "how it is called; empty: nothing")
	c.Flags().StringVar(&place, "place", "", "where it is; empty: nobody says")
	return c
}

// readTemplate reads a template's file; its name is what the file is called.
func (a *app) readTemplate(file string) (name, text string, err error) {
	if a.env.Console != "" {
		return "", "", &usageError{errors.New("a console has no files; do this from a laptop")}
	}
	name = strings.TrimSuffix(filepath.Base(file), ".toml")
	if !model.TemplateForm.MatchString(name) {
		return "", "", &usageError{fmt.Errorf("expected a file named as the chip, small letters, digits, - and _ and .toml, such as aht20.toml, got %q", filepath.Base(file))}
	}
	f, err := os.Open(file)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2*model.MaxTemplateText))
	return name, string(b), err
}

func (a *app) sensorTry() *cobra.Command {
	var given []string
	c := a.ofSensor("try SENSOR CHIP|FILE.toml", "set a chip up by a template, read it once, and tell all that happened", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
		p, err := params(given)
		if err != nil {
			return err
		}
		t := apitype.TrySensor{Chip: args[1], Params: p}
		if strings.HasSuffix(args[1], ".toml") {
			if t.Chip, t.Text, err = a.readTemplate(args[1]); err != nil {
				return err
			}
		}
		j, err := c.TrySensor(ctx, args[0], t)
		if err != nil {
			return a.cannot(err)
		}
		return a.followJob(ctx, c, j, false, a.showTrial)
	})
	c.Long = `Try is for people who write templates: the node sets the chip up as the template
says, reads it once, and tells each transaction, each name's number, and the values.
Nothing is kept of it. With a file, the template need not be stored.`
	c.Flags().StringArrayVar(&given, "param", nil, "what depends on its wiring: `NAME=NUMBER`")
	return c
}

func (a *app) showTrial(_ context.Context, _ *client.Client, j apitype.Job) error {
	var t model.SensorTrial
	if err := json.Unmarshal(j.Result, &t); err != nil {
		return fmt.Errorf("expected what came of the trial, got %.100q: %w", j.Result, err)
	}
	return a.show(t, func(w io.Writer) error {
		bus := table.New("WRITTEN", "READ", "TOOK", "ERROR")
		for _, x := range t.Transactions {
			bus.Row(x.Write, x.Read, table.In("ms", "%.1f", x.TookMS), x.Error)
		}
		numbers := func(heading string, list []model.SensorVariable) section {
			n := table.New(heading, "NUMBER", "WHY NOT")
			for _, v := range list {
				number := ""
				if v.Value != nil {
					number = strings.TrimSpace(strconv.FormatFloat(*v.Value, 'g', 10, 64) + " " + v.Unit)
				}
				n.Row(v.Name, number, v.Error)
			}
			return section{len(list), n}
		}
		if t.Error != "" {
			a.say("It could not be read: %s", t.Error)
		}
		return writeTables(w, []section{{len(t.Transactions), bus}, numbers("NAME", t.Variables), numbers("VALUE", t.Values)})
	})
}

func (a *app) sensorLint() *cobra.Command {
	c := &cobra.Command{
		Use: "lint FILE.toml", Short: "what is wrong with a template, and what its author may have overlooked", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, text, err := a.readTemplate(args[0])
			if err != nil {
				return err
			}
			list := []model.TemplateFinding{}
			for _, f := range i2c.Lint(name+".toml", []byte(text)) {
				list = append(list, model.TemplateFinding{File: f.File, Line: f.Line, Key: f.Key, Text: f.Text, Warning: f.Warning})
			}
			return a.showFindings(client.Findings(list))
		},
	}
	c.Long = `Lint looks at a template on this computer; no gateway is asked. What is wrong is said
with its line and what was expected. docs/sensors.md describes the form.`
	return c
}

func (a *app) showFindings(f apitype.SensorTemplateFindings) error {
	err := a.show(f, func(w io.Writer) error {
		for _, v := range f.Items {
			kind := "error"
			if v.Warning {
				kind = "warning"
			}
			at := v.File
			if v.Line > 0 {
				at = fmt.Sprintf("%s:%d", at, v.Line)
			}
			if v.Key != "" {
				at += ": " + v.Key
			}
			if _, err := fmt.Fprintf(w, "%s: %s: %s\n", kind, at, v.Text); err != nil {
				return err
			}
		}
		if len(f.Items) == 0 {
			a.say("Nothing is wrong with it.")
		}
		return nil
	})
	if err == nil && !f.Usable {
		err = errors.New("the template cannot be used")
	}
	return err
}

func (a *app) sensorInventory(ctx context.Context, c *client.Client, args []string) error {
	v, err := c.NodeInventory(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(v, func(w io.Writer) error {
		buses := table.New("BUS", "NAME", "PROBLEM")
		for _, b := range v.Buses {
			buses.Row(b.Path, b.Name, b.Problem)
		}
		sensors := table.New("SENSOR", "STATE", "CHIP", "LABEL", "PROBLEM")
		for _, s := range v.Sensors {
			sensors.Row(s.Key(), s.State, s.Chip, s.Label, s.Problem)
		}
		templates := table.New("TEMPLATE", "DIGEST", "PROBLEM")
		for _, t := range v.Templates {
			templates.Row(t.Name, t.Digest, t.Problem)
		}
		return writeTables(w, []section{{len(v.Buses), buses}, {len(v.Sensors), sensors}, {len(v.Templates), templates}})
	})
}

func (a *app) templateCommand() *cobra.Command {
	names := func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.SensorTemplates(ctx)
		var out []string
		for _, t := range list {
			out = append(out, t.Name)
		}
		return out, err
	}
	return group("template", "templates of chips: those of the release, and those that people store for all nodes",
		a.call("list", "all templates", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.SensorTemplates(ctx)
			if err != nil {
				return err
			}
			return a.show(items[apitype.SensorTemplate]{list}, func(w io.Writer) error {
				t := table.New("TEMPLATE", "TITLE", "FROM", "ON NODES", "MISSING")
				for _, v := range list {
					from := v.By
					if v.BuiltIn {
						from = "the release"
					}
					t.Row(v.Name, v.Title, from, v.On, v.Missing)
				}
				return t.Write(w)
			})
		}),
		a.completes(a.call("show NAME", "a template's text", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.SensorTemplate(ctx, args[0])
			if err != nil {
				return notFound(err, "haloctl sensor template list shows the templates")
			}
			return a.show(t, func(w io.Writer) error {
				_, err := io.WriteString(w, t.Text)
				return err
			})
		}), names),
		a.call("put FILE.toml", "store a template; all nodes get it", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			name, text, err := a.readTemplate(args[0])
			if err != nil {
				return err
			}
			f, err := c.LintSensorTemplate(ctx, name, text)
			if err != nil {
				return err
			}
			if !f.Usable {
				return a.showFindings(f)
			}
			t, err := c.PutSensorTemplate(ctx, name, text)
			if err != nil {
				return err
			}
			return a.show(t, func(io.Writer) error {
				a.say("%s is stored; nodes that are there get it now.", t.Name)
				return nil
			})
		}),
		a.completes(a.call("delete NAME", "take a template from all nodes", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DeleteSensorTemplate(ctx, args[0]); err != nil {
				return notFound(err, "haloctl sensor template list shows the templates")
			}
			a.say("%s is taken from all nodes.", args[0])
			return nil
		}), names),
	)
}

// powerCommand shows how nodes are fed.
func (a *app) powerCommand() *cobra.Command {
	c := a.ofNode("power [NODE]", "how nodes are fed: by battery or from outside, and how full the battery is", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		var list []apitype.NodePower
		var err error
		if len(args) == 1 {
			var one apitype.NodePower
			one, err = c.NodePower(ctx, args[0])
			list = []apitype.NodePower{one}
		} else {
			list, err = c.Power(ctx)
		}
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		return a.show(items[apitype.NodePower]{list}, func(w io.Writer) error { return writePower(w, list) })
	})
	return a.orHere(c, func(ctx context.Context) error {
		st, err := a.own(ctx)
		if err != nil {
			return err
		}
		if st.Power == nil {
			return errors.New("halo-agent has not looked yet: it waits for halo-mesh")
		}
		list := []apitype.NodePower{{NodeName: "here", Online: true, Power: *st.Power}}
		return a.show(items[apitype.NodePower]{list}, func(w io.Writer) error { return writePower(w, list) })
	}, func(context.Context, string) error {
		return &usageError{errors.New("--local: expected no node: it is this device")}
	})
}

func writePower(w io.Writer, list []apitype.NodePower) error {
	t := table.New("NODE", "FED BY", "CHARGE", "LOW", "MEASURED")
	for _, p := range list {
		charge := ""
		if p.Power.Percent != nil {
			charge = fmt.Sprintf("%.0f %%", *p.Power.Percent)
			if p.Power.By == model.ChargeVoltage {
				charge += ", by voltage"
			}
		}
		var measured []string
		for _, k := range slices.Sorted(maps.Keys(p.Power.Measured)) {
			measured = append(measured, fmt.Sprintf("%s %.3g", k, p.Power.Measured[k]))
		}
		source := string(p.Power.Source)
		if !p.Online {
			source += ", node is off"
		}
		t.Row(p.NodeName, source, charge, table.Yes(p.Power.Low), strings.Join(measured, ", "))
	}
	return t.Write(w)
}
