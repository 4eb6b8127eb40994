package ctl

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const noRule = "haloctl firewall list shows the draft"

// firewallLists show parts of the draft, each as the API has it.
func (a *app) firewallLists() []*cobra.Command {
	return []*cobra.Command{
		a.call("rules", "the draft's rules, in the order in which they are asked", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.FirewallRules(ctx)
			if err != nil {
				return err
			}
			return a.show(items[model.FirewallRule]{list}, policyTable(model.FirewallPolicy{Rules: list}).Write)
		}),
		a.call("forwards", "the draft's port forwards", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.PortForwards(ctx)
			if err != nil {
				return err
			}
			return a.show(items[model.PortForward]{list}, policyTable(model.FirewallPolicy{PortForwards: list}).Write)
		}),
		a.call("forwardings", "from which zones to which connections may go through, those included that always may", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Forwardings(ctx)
			if err != nil {
				return err
			}
			return a.show(items[apitype.FirewallForwarding]{list}, func(w io.Writer) error {
				t := table.New("FROM", "TO", "ALWAYS")
				for _, f := range list {
					t.Row(f.From, f.To, f.Builtin)
				}
				return t.Write(w)
			})
		}),
		group("show", "one part of the draft", a.completes(a.call("rule NAME", "one rule", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.FirewallRule(ctx, args[0])
			if err != nil {
				return notFound(err, noRule)
			}
			return a.show(r, policyTable(model.FirewallPolicy{Rules: []model.FirewallRule{r}}).Write)
		}), ruleWords)),
		group("set", "change a part of the draft: what is named, and nothing else", a.firewallSetRule(), a.firewallSetForward()),
	}
}

func ruleWords(ctx context.Context, c *client.Client) ([]string, error) {
	return names(ctx, c.FirewallRules, func(r model.FirewallRule) (string, string) {
		return r.Name, fmt.Sprintf("%s from %s to %s", r.Action, r.From, r.To)
	})
}

func forwardWords(ctx context.Context, c *client.Client) ([]string, error) {
	return names(ctx, c.PortForwards, func(f model.PortForward) (string, string) {
		return f.Name, fmt.Sprintf("%s %s to %s", f.Proto, f.Port, f.To)
	})
}

func (a *app) firewallSetRule() *cobra.Command {
	var to apitype.PlaceFirewallRule
	var ports, sources []string
	var c *cobra.Command
	c = a.completes(a.call("rule NAME", "change a rule, its name or its place", cobra.ExactArgs(1), func(ctx context.Context, api *client.Client, args []string) error {
		f, err := api.FirewallPolicy(ctx)
		if err != nil {
			return err
		}
		k := slices.IndexFunc(f.Draft.Rules, func(r model.FirewallRule) bool { return r.Name == args[0] })
		if k < 0 {
			return noPart("rule", args[0])
		}
		r := apitype.PlaceFirewallRule{FirewallRule: f.Draft.Rules[k], Before: to.Before}
		err = given(c, map[string]func() error{
			"before": nil,
			"name":   func() error { r.Name = to.Name; return nil },
			"action": func() error { r.Action = to.Action; return nil },
			"from":   func() error { r.From = to.From; return nil },
			"to":     func() error { r.To = to.To; return nil },
			"proto":  func() error { r.Proto = to.Proto; return nil },
			"port":   func() (err error) { r.Ports, err = parsePorts(ports); return err },
			"source": func() (err error) { r.Sources, err = parseSources(sources); return err },
		})
		if err != nil {
			return err
		}
		return a.edited(api.UpdateFirewallRule(ctx, args[0], r, f.Digest))
	}), ruleWords)
	c.Example = "  haloctl firewall set rule no-mail --port 25,465,587 --before web"
	c.Flags().StringVar(&to.Name, "name", "", "another name")
	c.Flags().StringVar(&to.Action, "action", "", "allow or deny")
	c.Flags().StringVar((*string)(&to.From), "from", "", "`zone` that connections come from")
	c.Flags().StringVar((*string)(&to.To), "to", "", "`zone` that they lead to, or local")
	c.Flags().StringVar(&to.Proto, "proto", "", "only `protocol` tcp, udp or icmp; empty: all")
	c.Flags().StringSliceVar(&ports, "port", nil, "only to these `ports`, such as 80 or 5000-5010; empty: all")
	c.Flags().StringSliceVar(&sources, "source", nil, "only from these `networks` or addresses; empty: all")
	c.Flags().StringVar(&to.Before, "before", "", "ask it before the rule of that `name`")
	return c
}

func (a *app) firewallSetForward() *cobra.Command {
	var name, proto, port, to string
	var sources []string
	var c *cobra.Command
	c = a.completes(a.call("forward NAME", "change a port forward", cobra.ExactArgs(1), func(ctx context.Context, api *client.Client, args []string) error {
		policy, err := api.FirewallPolicy(ctx)
		if err != nil {
			return err
		}
		k := slices.IndexFunc(policy.Draft.PortForwards, func(f model.PortForward) bool { return f.Name == args[0] })
		if k < 0 {
			return noPart("port forward", args[0])
		}
		f := policy.Draft.PortForwards[k]
		err = given(c, map[string]func() error{
			"name":  func() error { f.Name = name; return nil },
			"proto": func() error { f.Proto = proto; return nil },
			"port": func() error {
				ports, err := parsePorts([]string{port})
				if err == nil {
					f.Port = ports[0]
				}
				return err
			},
			"to":     func() (err error) { f.To, f.ToPort, err = parseForwardTo(to); return err },
			"source": func() (err error) { f.Sources, err = parseSources(sources); return err },
		})
		if err != nil {
			return err
		}
		return a.edited(api.UpdatePortForward(ctx, args[0], f, policy.Digest))
	}), forwardWords)
	c.Example = "  haloctl firewall set forward web --to 10.43.7.21:80"
	c.Flags().StringVar(&name, "name", "", "another name")
	c.Flags().StringVar(&proto, "proto", "", "tcp or udp")
	c.Flags().StringVar(&port, "port", "", "on the uplink, such as 80 or 5000-5010")
	c.Flags().StringVar(&to, "to", "", "`address` of a client or a node, or address:port")
	c.Flags().StringSliceVar(&sources, "source", nil, "only from these `networks` or addresses; empty: all")
	return c
}

// given does what belongs to each flag that was given. None is wrong usage.
func given(c *cobra.Command, flags map[string]func() error) error {
	some := false
	for name, set := range flags {
		if !c.Flags().Changed(name) {
			continue
		}
		some = true
		if set != nil {
			if err := set(); err != nil {
				return err
			}
		}
	}
	if !some {
		return &usageError{fmt.Errorf("expected something to change (see %s --help)", c.CommandPath())}
	}
	return nil
}

// noPart is returned where the draft lacks what is to be changed.
func noPart(what, name string) error {
	return &hintError{&apitype.Problem{Title: "Not Found", Status: 404, Detail: "the draft has no " + what + " " + name}, noRule}
}

// parseForwardTo reads where a port forward leads.
func parseForwardTo(text string) (to netip.Addr, port uint16, err error) {
	if to, err = netip.ParseAddr(text); err == nil {
		return to, 0, nil
	}
	both, err := netip.ParseAddrPort(text)
	if err != nil {
		return to, 0, &usageError{fmt.Errorf("ADDRESS: expected one such as 10.43.7.20 or 10.43.7.20:80, got %q", text)}
	}
	return both.Addr(), both.Port(), nil
}
