package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const brainLong = `Brain shows and changes neurons: logical units with four components, sensor
(gathers), thought (decides, routes), memory (stores) and send (outputs). Each is
assigned to any number of devices, by name or ID, and of their processes, written as
halo-agent@NODE; each of those may be part of any number of components.

In DNS, brain-COMPONENT-NEURON.halo leads to the devices of a component, for all
devices of the network and their clients.

A component is ok when all its parts are, degraded when some are live, failed when
none is. A neuron is as bad as the worst component that it needs: those named with
--needs, or without that all that something is assigned to.`

const noNeuron = "haloctl brain list shows the neurons"

var components = []cobra.Completion{string(model.Sensor), string(model.Thought), string(model.Memory), string(model.Send)}

func (a *app) brainCommand() *cobra.Command {
	g := group("brain", "neurons: logical units over the network's devices",
		a.brainList(),
		a.ofNeuron("show NEURON", "one neuron, what its components are assigned to, and what they lack", cobra.ExactArgs(1), a.brainShow),
		a.brainAdd(), a.brainSet(),
		a.call("assignments", "what each component of each neuron is assigned to", cobra.NoArgs, a.brainAssignments),
		a.brainAssignCommand(),
		a.toParts("unassign NEURON COMPONENT PART...", "take a component off devices and processes", a.brainUnassign),
		a.ofNeuron("remove NEURON", "remove a neuron; its devices stay as they are", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DeleteNeuron(ctx, args[0]); err != nil {
				return notFound(err, noNeuron)
			}
			a.say("%s is removed.", args[0])
			return nil
		}),
	)
	g.Long = brainLong
	return g
}

// ofNeuron is a call whose first argument is a neuron.
func (a *app) ofNeuron(use, short string, args cobra.PositionalArgs, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return a.completes(a.call(use, short, args, run), func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, c.Neurons, func(n apitype.Neuron) (string, string) { return n.Name, n.Description })
	})
}

// toParts is a call whose arguments are a neuron, a component, and parts.
func (a *app) toParts(use, short string, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	c := a.ofNeuron(use, short, cobra.MinimumNArgs(3), func(ctx context.Context, c *client.Client, args []string) error {
		if !model.Component(args[1]).Valid() {
			return &usageError{fmt.Errorf("component: expected sensor, thought, memory or send, got %q", args[1])}
		}
		return run(ctx, c, args)
	})
	c.Long = strings.ToUpper(short[:1]) + short[1:] + `.

PART is a device, by name or ID, or a process of one: halo-mesh@NODE,
halo-agent@NODE, halo-field@NODE, or gateway-api@NODE of the gateway; or a sensor, by
its ID as haloctl sensor list has it.`
	first := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return components, cobra.ShellCompDirectiveNoFileComp
		}
		return first(c, args, part)
	}
	return c
}

// partOf reads a part as people write it.
func partOf(arg string) model.Part {
	if key, _, ok := model.SplitSensorID(arg); ok {
		if _, _, sensor := model.SplitSensorKey(key); sensor && !strings.HasPrefix(key, "halo-") && !strings.HasPrefix(key, "gateway-") {
			return model.Part{Kind: model.PartSensor, ID: arg}
		}
	}
	if strings.Contains(arg, "@") {
		return model.Part{Kind: model.PartProcess, ID: arg}
	}
	return model.Part{Kind: model.PartDevice, ID: arg}
}

// partName writes a part as people read it.
func partName(p model.Part, names map[string]string) string {
	device, process := p.Device()
	device = nameOf(names, device)
	if process == "" {
		return device
	}
	return model.ProcessID(process, device)
}

func (a *app) brainList() *cobra.Command {
	var on string
	list := a.call("list", "all neurons and how they are", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		b, err := c.Brain(ctx, on)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		return a.show(b, func(w io.Writer) error { return writeBrain(w, b) })
	})
	list.Flags().StringVar(&on, "on", "", "only those in which this `node` has a part, by name or ID")
	return list
}

func writeBrain(w io.Writer, b apitype.Brain) error {
	heading := []string{"NEURON", "STATE", "SENSOR", "THOUGHT", "MEMORY", "SEND", "LACKS"}
	first := len(heading)
	for _, c := range heading[2:6] {
		heading = append(heading, c+" LIVE", c+" PARTS")
	}
	t := table.New(heading...).Wide(first)
	for _, n := range b.Items {
		row, parts := []any{n.Name, n.State}, []any{}
		for _, c := range n.Components {
			row, parts = append(row, live(c)), append(parts, c.Live, c.Parts)
		}
		t.Row(append(append(row, n.Reason), parts...)...)
	}
	return t.Write(w)
}

// live is how a component is, in a cell: its state and, for people, how many of its parts
// are live.
func live(c apitype.ComponentCondition) table.Cell {
	if c.Parts == 0 && !c.Needed {
		return table.Cell{}
	}
	return table.Two(fmt.Sprintf("%s %d/%d", c.State, c.Live, c.Parts), fmt.Sprint(c.State))
}

func (a *app) brainShow(ctx context.Context, c *client.Client, args []string) error {
	n, _, err := c.Neuron(ctx, args[0])
	if err != nil {
		return notFound(err, noNeuron)
	}
	h, err := c.NeuronHealth(ctx, args[0])
	if err != nil {
		return notFound(err, noNeuron)
	}
	names, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	both := struct {
		apitype.Neuron
		Health apitype.NeuronHealth `json:"health"`
	}{n, h}
	return a.show(both, func(w io.Writer) error {
		t := table.New()
		t.Row("Neuron", n.Name)
		t.Row("Description", n.Description)
		t.Row("State", strings.TrimSuffix(string(h.State)+": "+h.Reason, ": "))
		t.Row("Made", table.Age(c.Now(), n.Created))
		t.Row("By", n.By)
		parts := table.New("COMPONENT", "NEEDED", "STATE", "NAME", "PARTS", "LIVE", "OF").Wide(5)
		for i, of := range n.Components {
			k := apitype.ComponentCondition{}
			if i < len(h.Components) {
				k = h.Components[i]
			}
			list := make([]string, len(of.Parts))
			for j, p := range of.Parts {
				list[j] = partName(p, names)
			}
			parts.Row(of.Component, k.Needed, live(k), of.Name+".halo", strings.Join(list, " "), k.Live, k.Parts)
		}
		lacks := table.New("LACKING IN", "STATE", "PART", "WHAT")
		for _, l := range h.Lacks {
			part := ""
			if l.Part != nil {
				part = partName(*l.Part, names)
			}
			lacks.Row(string(l.Component), string(l.State), part, l.Lacks)
		}
		if h.More > 0 {
			lacks.People("", "", "", fmt.Sprintf("and %d more", h.More))
			t.Programs("Lacks not listed", h.More)
		}
		return writeTables(w, []section{{1, t}, {len(n.Components), parts}, {len(h.Lacks), lacks}})
	})
}

const needsFlag = "components without which it does not work, such as sensor,send; none: those that something is assigned to"

func (a *app) brainAdd() *cobra.Command {
	var description string
	var needs []string
	add := a.call("add NEURON", "make a neuron", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		n, err := c.CreateNeuron(ctx, apitype.CreateNeuron{Name: args[0], Description: description, Needs: needed(needs)})
		if err != nil {
			return err
		}
		return a.show(n, func(io.Writer) error {
			a.say("%s is there; haloctl brain assign says what its components run on.", n.Name)
			return nil
		})
	})
	add.Flags().StringVar(&description, "description", "", "what it is for")
	add.Flags().StringSliceVar(&needs, "needs", nil, needsFlag)
	cobra.CheckErr(add.RegisterFlagCompletionFunc("needs", cobra.FixedCompletions(components, cobra.ShellCompDirectiveNoFileComp)))
	return add
}

func needed(words []string) []model.Component {
	list := []model.Component{}
	for _, w := range words {
		list = append(list, model.Component(w))
	}
	return list
}

func (a *app) brainSet() *cobra.Command {
	var name, description string
	var needs []string
	var set *cobra.Command
	set = a.ofNeuron("set NEURON", "rename or describe a neuron, or say what it needs", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		var u apitype.UpdateNeuron
		if set.Flags().Changed("name") {
			u.Name = &name
		}
		if set.Flags().Changed("description") {
			u.Description = &description
		}
		if set.Flags().Changed("needs") {
			list := needed(slices.DeleteFunc(needs, func(w string) bool { return w == "" || w == "none" }))
			u.Needs = &list
		}
		if u == (apitype.UpdateNeuron{}) {
			return &usageError{fmt.Errorf("expected --name, --description or --needs")}
		}
		n, err := c.UpdateNeuron(ctx, args[0], u)
		if err != nil {
			return notFound(err, noNeuron)
		}
		return a.show(n, func(io.Writer) error {
			words := make([]string, len(n.Needs))
			for i, c := range n.Needs {
				words[i] = string(c)
			}
			a.say("%s: %s; needs %s.", n.Name, cmp.Or(n.Description, "no description"), cmp.Or(strings.Join(words, ", "), "what something is assigned to"))
			return nil
		})
	})
	set.Flags().StringVar(&name, "name", "", "another name; those of its components change with it")
	set.Flags().StringVar(&description, "description", "", "what it is for")
	set.Flags().StringSliceVar(&needs, "needs", nil, needsFlag)
	cobra.CheckErr(set.RegisterFlagCompletionFunc("needs", cobra.FixedCompletions(components, cobra.ShellCompDirectiveNoFileComp)))
	return set
}

func (a *app) brainAssignments(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.Neurons(ctx)
	if err != nil {
		return err
	}
	nodes, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Neuron]{list}, func(w io.Writer) error {
		t := table.New("NEURON", "COMPONENT", "KIND", "PART", "ID").Wide(4)
		for _, n := range list {
			for _, of := range n.Components {
				for _, p := range of.Parts {
					t.Row(n.Name, of.Component, p.Kind, partName(p, nodes), p.ID)
				}
			}
		}
		return t.Write(w)
	})
}

func (a *app) brainAssignCommand() *cobra.Command {
	var replace bool
	assign := a.toParts("assign NEURON COMPONENT PART...", "assign a component to devices and processes, besides others", func(ctx context.Context, c *client.Client, args []string) error {
		if replace {
			return a.brainReplace(ctx, c, args)
		}
		return a.brainAssign(ctx, c, args)
	})
	assign.Flags().BoolVar(&replace, "replace", false, "take it off all others")
	return assign
}

// brainReplace assigns a component to some parts and no others, unless somebody changes the
// neuron meanwhile.
func (a *app) brainReplace(ctx context.Context, c *client.Client, args []string) error {
	_, tag, err := c.Neuron(ctx, args[0])
	if err != nil {
		return notFound(err, noNeuron)
	}
	parts := make([]model.Part, len(args)-2)
	for i, arg := range args[2:] {
		parts[i] = partOf(arg)
	}
	n, err := c.AssignComponent(ctx, args[0], model.Component(args[1]), parts, tag)
	if err != nil {
		return notFound(err, noNeuron+", haloctl node list the devices")
	}
	return a.show(n, func(io.Writer) error {
		a.say("%s is assigned to %s alone.", model.ComponentName(model.Component(args[1]), args[0]), strings.Join(args[2:], ", "))
		return nil
	})
}

func (a *app) brainAssign(ctx context.Context, c *client.Client, args []string) error {
	var n apitype.Neuron
	for _, arg := range args[2:] {
		var err error
		if n, err = c.AssignPart(ctx, args[0], model.Component(args[1]), partOf(arg)); err != nil {
			return notFound(err, noNeuron+", haloctl node list the devices")
		}
	}
	return a.show(n, func(io.Writer) error {
		a.say("%s is assigned to %s.", model.ComponentName(model.Component(args[1]), args[0]), strings.Join(args[2:], ", "))
		return nil
	})
}

func (a *app) brainUnassign(ctx context.Context, c *client.Client, args []string) error {
	for _, arg := range args[2:] {
		if err := c.UnassignPart(ctx, args[0], model.Component(args[1]), partOf(arg)); err != nil {
			return notFound(err, "haloctl brain show "+args[0]+" shows what is assigned")
		}
	}
	a.say("%s is no longer assigned to %s.", model.ComponentName(model.Component(args[1]), args[0]), strings.Join(args[2:], ", "))
	return nil
}
