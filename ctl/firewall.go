package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
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

const firewallLong = `Firewall shows and changes what people have set of the gateway's firewall, besides
what it does by itself: rules, port forwards, forwardings between zones, and
services that are opened to a zone. The zones are uplink, mesh, clients and
overlay; a rule may also lead to local, the gateway itself.

What is added and removed is a draft. Preview says what it would change, and
apply has it hold for a minute: if nobody confirms it by then, if you have locked
yourself out, or if the gateway starts again, what held before comes back.`

func (a *app) firewallCommand() *cobra.Command {
	g := group("firewall", "what people have set of the gateway's firewall",
		a.call("list", "what holds, what is edited, and what is on trial", cobra.NoArgs, a.firewallList),
		a.call("zones", "the zones, and which services are open to them", cobra.NoArgs, a.firewallZones),
		group("add", "add to the draft", a.firewallAddRule(), a.firewallAddForward(),
			a.call("forwarding FROM TO", "let connections through from one zone to another", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
				return a.edited(c.AddForwarding(ctx, model.Forwarding{From: model.Zone(args[0]), To: model.Zone(args[1])}))
			})),
		group("remove", "remove from the draft",
			a.completes(a.call("rule NAME", "remove a rule", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
				return a.edited(c.RemoveFirewallRule(ctx, args[0]))
			}), ruleWords),
			a.completes(a.call("forward NAME", "remove a port forward", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
				return a.edited(c.RemovePortForward(ctx, args[0]))
			}), forwardWords),
			a.call("forwarding FROM TO", "remove a forwarding", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
				return a.edited(c.RemoveForwarding(ctx, model.Forwarding{From: model.Zone(args[0]), To: model.Zone(args[1])}))
			})),
		a.call("open ZONE SERVICE…", "open services of the gateway to a zone", cobra.MinimumNArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
			return a.openZone(ctx, c, args[0], args[1:], true)
		}),
		a.call("shut ZONE SERVICE…", "shut services that were opened to a zone", cobra.MinimumNArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
			return a.openZone(ctx, c, args[0], args[1:], false)
		}),
		a.call("preview", "what the draft would change, and whom it would shut out", cobra.NoArgs, a.firewallPreview),
		a.firewallApply(),
		a.call("confirm", "keep what is on trial", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			return a.firewallDone(c.ConfirmFirewall(ctx))("The policy is kept.")
		}),
		a.call("revert", "end the trial; what held before holds again", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			return a.firewallDone(c.RevertFirewall(ctx))("What held before holds again; the draft is as it was.")
		}),
		a.call("discard", "give the draft up", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			return a.firewallDone(c.DiscardFirewall(ctx))("The draft is what holds.")
		}),
	)
	g.AddCommand(a.firewallLists()...)
	g.Long = firewallLong
	return g
}

func (a *app) firewallAddRule() *cobra.Command {
	var r apitype.PlaceFirewallRule
	var ports, sources []string
	c := a.call("rule NAME allow|deny FROM TO", "allow or deny connections from one zone to another, or to local", cobra.ExactArgs(4), func(ctx context.Context, c *client.Client, args []string) error {
		r.Name, r.Action, r.From, r.To = args[0], args[1], model.Zone(args[2]), model.Zone(args[3])
		var err error
		if r.Ports, err = parsePorts(ports); err != nil {
			return err
		}
		if r.Sources, err = parseSources(sources); err != nil {
			return err
		}
		return a.edited(c.AddFirewallRule(ctx, r))
	})
	c.Flags().StringVar(&r.Proto, "proto", "", "only `protocol` tcp, udp or icmp")
	c.Flags().StringSliceVar(&ports, "port", nil, "only to these `ports`, such as 80 or 5000-5010; with --proto")
	c.Flags().StringSliceVar(&sources, "source", nil, "only from these `networks` or addresses")
	c.Flags().StringVar(&r.Before, "before", "", "ask it before the rule of that `name`; last, if left out")
	return c
}

func (a *app) firewallAddForward() *cobra.Command {
	var sources []string
	c := a.call("forward NAME tcp|udp PORT ADDRESS[:PORT]", "have a port of the uplinks lead to a client or a node", cobra.ExactArgs(4), func(ctx context.Context, c *client.Client, args []string) error {
		f := model.PortForward{Name: args[0], Proto: args[1]}
		ports, err := parsePorts(args[2:3])
		if err != nil {
			return err
		}
		f.Port = ports[0]
		if f.To, f.ToPort, err = parseForwardTo(args[3]); err != nil {
			return err
		}
		if f.Sources, err = parseSources(sources); err != nil {
			return err
		}
		return a.edited(c.AddPortForward(ctx, f))
	})
	c.Flags().StringSliceVar(&sources, "source", nil, "only from these `networks` or addresses")
	return c
}

func parsePorts(texts []string) (list []model.PortRange, err error) {
	for _, t := range texts {
		var p model.PortRange
		if err := p.UnmarshalText([]byte(t)); err != nil {
			return nil, &usageError{err}
		}
		list = append(list, p)
	}
	return list, nil
}

// parseSources takes an address for the network that is it alone.
func parseSources(texts []string) (list []netip.Prefix, err error) {
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if a, one := netip.ParseAddr(t); err != nil && one == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, &usageError{fmt.Errorf("--source: expected a network or an address, such as 192.0.2.0/24, got %q", t)}
		}
		list = append(list, p)
	}
	return list, nil
}

// edited tells what is to be done with a draft.
func (a *app) edited(f apitype.Firewall, err error) error {
	if err != nil {
		return notFound(err, noRule)
	}
	return a.show(f, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "The draft is changed; haloctl firewall preview shows what it would do, apply has it hold.")
		return err
	})
}

func (a *app) firewallDone(f apitype.Firewall, err error) func(words string) error {
	return func(words string) error {
		if err != nil {
			return err
		}
		return a.show(f, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, words)
			return err
		})
	}
}

func (a *app) openZone(ctx context.Context, c *client.Client, zone string, services []string, open bool) error {
	f, err := c.FirewallPolicy(ctx)
	if err != nil {
		return err
	}
	var now []string
	for _, o := range f.Draft.Openings {
		if string(o.Zone) == zone {
			now = o.Services
		}
	}
	now = slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(services, s) })
	if open {
		now = append(now, services...)
	}
	return a.edited(c.OpenZone(ctx, zone, append([]string{}, now...), f.Digest))
}

func (a *app) firewallApply() *cobra.Command {
	q := apitype.ApplyFirewall{}
	var within time.Duration
	c := a.call("apply", "have the draft hold, on trial", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if within < model.MinTrialS*time.Second || within > model.MaxTrialS*time.Second {
			return &usageError{fmt.Errorf("--confirm-within: expected %d s to %d s, got %s", model.MinTrialS, model.MaxTrialS, within)}
		}
		q.ConfirmS = int(within / time.Second)
		f, err := c.ApplyFirewall(ctx, q)
		if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Type == apitype.ProblemFirewallLocksOut {
			return &hintError{err, "haloctl firewall preview; with --anyway it is applied all the same"}
		}
		return a.firewallDone(f, err)(fmt.Sprintf("The draft holds for %s. Keep it with haloctl firewall confirm; otherwise what held before comes back.", within))
	})
	c.Flags().DurationVar(&within, "confirm-within", time.Minute, "how long it holds unless it is confirmed")
	c.Flags().BoolVar(&q.Anyway, "anyway", false, "also if it shuts you out, or what the network needs")
	return c
}

func (a *app) firewallPreview(ctx context.Context, c *client.Client, _ []string) error {
	p, err := c.PreviewFirewall(ctx)
	if err != nil {
		return err
	}
	return a.show(p, func(w io.Writer) error {
		for _, part := range []struct {
			words string
			list  []string
		}{{"+", p.Added}, {"-", p.Removed}, {"breaks:", p.Breaks}} {
			for _, line := range part.list {
				fmt.Fprintln(w, part.words, table.Clean(line))
			}
		}
		if len(p.Added)+len(p.Removed) == 0 {
			fmt.Fprintln(w, "The draft would change nothing.")
		}
		if p.LocksOut != "" {
			fmt.Fprintln(w, "It would shut you out:", table.Clean(p.LocksOut))
		}
		return nil
	})
}

func (a *app) firewallList(ctx context.Context, c *client.Client, _ []string) error {
	f, err := c.FirewallPolicy(ctx)
	if err != nil {
		return err
	}
	return a.show(f, func(w io.Writer) error {
		switch {
		case f.Trial != nil:
			fmt.Fprintf(w, "On trial for another %d s, applied by %s: haloctl firewall confirm keeps it.\n", f.Trial.LeftS, table.Clean(f.Trial.By))
		case f.Reverted != nil:
			fmt.Fprintf(w, "The last trial was reverted %s: %s.\n", table.Age(c.Now(), f.Reverted.Time), table.Clean(f.Reverted.Reason))
		}
		if f.Edited && (f.Trial == nil || f.Trial.Policy.Digest() != f.Digest) {
			fmt.Fprintln(w, "The draft, shown here, differs from what holds: haloctl firewall preview shows how.")
		}
		if f.Problem != "" {
			fmt.Fprintln(w, "What is kept does not hold as a whole:", table.Clean(f.Problem))
		}
		return policyTable(f.Draft).Write(w)
	})
}

func policyTable(p model.FirewallPolicy) *table.Table {
	t := table.New("WHAT", "NAME", "ACTION", "FROM", "TO", "PROTO", "PORTS", "SOURCES")
	for _, o := range p.Openings {
		t.Row("opening", "", "allow", string(o.Zone), "local", "", strings.Join(o.Services, " "), "")
	}
	for _, f := range p.Forwardings {
		t.Row("forwarding", "", "allow", string(f.From), string(f.To), "", "", "")
	}
	for _, r := range p.Rules {
		t.Row("rule", r.Name, r.Action, string(r.From), string(r.To), r.Proto, words(r.Ports), words(r.Sources))
	}
	for _, f := range p.PortForwards {
		to := f.To.String()
		if f.ToPort != 0 {
			to = netip.AddrPortFrom(f.To, f.ToPort).String()
		}
		t.Row("forward", f.Name, "allow", "uplink", to, f.Proto, f.Port.String(), words(f.Sources))
	}
	return t
}

func words[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, " ")
}

func (a *app) firewallZones(ctx context.Context, c *client.Client, _ []string) error {
	l, err := c.FirewallZones(ctx)
	if err != nil {
		return err
	}
	return a.show(l, func(w io.Writer) error {
		t := table.New("ZONE", "INTERFACES", "REFUSED", "SERVICES", "OPENED BY THE DRAFT")
		for _, z := range l.Items {
			var refused uint64
			for _, d := range z.Drops {
				refused += d.Packets
			}
			var services []string
			for _, s := range z.Services {
				services = append(services, s.Name)
			}
			slices.Sort(services)
			t.Row(string(z.Zone), strings.Join(z.Interfaces, " "), strconv.FormatUint(refused, 10), strings.Join(slices.Compact(services), " "), cmp.Or(strings.Join(z.Opened, " "), "-"))
		}
		return t.Write(w)
	})
}
