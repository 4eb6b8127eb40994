package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const changeLong = `The gateway hands the new profile to all nodes, waits until those that are there
have it on their cards, and has all switch at once. A node that does not hear the
gateway there goes back by itself, and a change to which too few nodes come is
taken back. Nodes that are off meanwhile come back by themselves: any member tells
them of it.

The law of the country is asked first.`

func (a *app) meshChannel() *cobra.Command {
	var width, halow int
	var o changeOptions
	set := a.call("set [CHANNEL]", "move the whole mesh to another channel", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		want := apitype.ChangeMeshChannel{Width: width, HaLowChannel: halow}
		for _, arg := range args {
			n, err := strconv.Atoi(arg)
			if err != nil || n < 1 {
				return &usageError{fmt.Errorf("channel: expected a number such as 6 or 36, got %q", arg)}
			}
			want.Channel = n
		}
		if want == (apitype.ChangeMeshChannel{}) {
			return &usageError{errors.New("expected a channel of Wi-Fi, --width or --halow")}
		}
		want.Anyway = o.anyway
		p, err := c.ChangeChannel(ctx, want)
		return a.followChange(ctx, c, p, err, o.wait)
	})
	set.Long = changeLong
	set.Flags().IntVar(&width, "width", 0, "of the channel in `MHz`: 20 or 40")
	set.Flags().IntVar(&halow, "halow", 0, "S1G `channel` for HaLow radios")
	o.flags(set)
	return group("channel", "where the mesh is, and a move of it",
		a.askDevice("show", "the mesh's channel, and whether it moves", cobra.NoArgs, a.showChannel), set)
}

func (a *app) meshProfile() *cobra.Command {
	var text struct{ routing, mfp, sae, scheme string }
	var beacon, penalty int
	var o, r changeOptions
	var set *cobra.Command
	set = a.call("set", "change what all members of the mesh have to agree on", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		var want model.ProfileChange
		for _, f := range []struct {
			to   **string
			from *string
		}{{&want.Routing, &text.routing}, {&want.MFP, &text.mfp}, {&want.SAE, &text.sae}, {&want.HaLowScheme, &text.scheme}} {
			if *f.from != "" {
				*f.to = f.from
			}
		}
		if beacon != 0 {
			want.BeaconInterval = &beacon
		}
		if set.Flags().Changed("hop-penalty") { // 0 says something
			want.HopPenalty = &penalty
		}
		if want == (model.ProfileChange{}) {
			return &usageError{errors.New("expected something to change: --routing, --hop-penalty, --mfp, --sae, --beacon-interval or --halow-scheme")}
		}
		return a.changeProfile(ctx, c, want, o)
	})
	set.Long = changeLong
	set.Flags().StringVar(&text.routing, "routing", "", "`algorithm`: BATMAN_IV or BATMAN_V")
	set.Flags().IntVar(&penalty, "hop-penalty", 0, "what is taken off a way for each node that passes on, `of 255`; 0: batman-adv's own, 30")
	set.Flags().StringVar(&text.mfp, "mfp", "", "`protection` of management frames: required, optional or off")
	set.Flags().StringVar(&text.sae, "sae", "", "`method`: hash-to-element or hunting-and-pecking")
	set.Flags().StringVar(&text.scheme, "halow-scheme", "", "`numbering` of S1G channels")
	set.Flags().IntVar(&beacon, "beacon-interval", 0, "in `time units` of 1.024 ms")
	o.flags(set)
	rotate := a.call("rotate-secret", "draw another mesh secret, and hand it to all members", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		return a.changeProfile(ctx, c, model.ProfileChange{RotateSecret: true}, r)
	})
	rotate.Long = changeLong + `

A card that was written before and has never joined does not know the new secret:
write it anew. Revoking a node rotates the secret by itself.`
	r.flags(rotate)
	return group("profile", "what all members of the mesh have to agree on, and changes of it",
		a.askDevice("show", "the mesh profile, and how far a change of it is", cobra.NoArgs, a.showProfile), set, rotate)
}

// changeOptions are of all changes.
type changeOptions struct{ anyway, wait bool }

func (o *changeOptions) flags(c *cobra.Command) {
	c.Flags().BoolVar(&o.anyway, "anyway", false, "also when nodes that are there do not get ready in time")
	c.Flags().BoolVar(&o.wait, "wait", false, "until the change is over")
}

// changeWait is how long a change takes at the most, and lookAgain how often its
// progress is asked for.
const (
	changeWait = 12 * time.Minute
	lookAgain  = 2 * time.Second
)

func (a *app) changeProfile(ctx context.Context, c *client.Client, want model.ProfileChange, o changeOptions) error {
	want.Anyway = o.anyway
	p, err := c.ChangeProfile(ctx, want)
	return a.followChange(ctx, c, p, err, o.wait)
}

// followChange shows how far a change is, or how it went.
func (a *app) followChange(ctx context.Context, c *client.Client, p model.MeshProfile, err error, wait bool) error {
	if err != nil {
		return err
	}
	for end := time.Now().Add(changeWait); wait && p.Phase != "idle" && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
		// The gateway's own way to the one who asks may be the mesh that changes.
		if now, err := c.Profile(ctx); err == nil {
			p = now
		}
	}
	names, err := a.namesOf(ctx, c)
	if err != nil {
		names = nil // the change counts, not what the nodes are called
	}
	return a.show(p, func(w io.Writer) error { return writeProfile(w, p, names, c.Now()) })
}

func (a *app) showChannel(ctx context.Context, from air, _ []string) error {
	c, err := from.Channel(ctx)
	if err != nil {
		return err
	}
	return a.show(c, func(w io.Writer) error {
		t := table.New()
		channelRows(t, c)
		t.Row("Change", phrase(model.MeshProfile{Phase: c.Phase}))
		return t.Write(w)
	})
}

func channelRows(t *table.Table, c apitype.MeshChannel) {
	t.Row("Channel", c.Channel)
	t.Row("Width", table.In("MHz", "", float64(c.Width)))
	if c.HaLowChannel != 0 {
		t.Row("HaLow", fmt.Sprintf("S1G channel %d %s", c.HaLowChannel, c.HaLowScheme))
	}
}

func (a *app) showProfile(ctx context.Context, from air, _ []string) error {
	p, err := from.Profile(ctx)
	if err != nil {
		return err
	}
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	return a.show(p, func(w io.Writer) error { return writeProfile(w, p, names, from.Now()) })
}

func parameterRows(t *table.Table, m model.MeshParameters) {
	channelRows(t, apitype.MeshChannel{Channel: m.Channel, Width: m.Width, HaLowChannel: m.HaLowChannel, HaLowScheme: m.HaLowScheme})
	t.Row("Routing", m.Routing)
	if m.HopPenalty != 0 {
		t.Row("Hop penalty", table.Two(fmt.Sprintf("%d of 255", m.HopPenalty), strconv.Itoa(m.HopPenalty)))
	}
	t.Row("Protection", "MFP "+m.MFP+", SAE by "+m.SAE)
	t.Row("Beacons every", table.In("time units", "", float64(m.BeaconInterval)))
}

func writeProfile(w io.Writer, p model.MeshProfile, names map[string]string, now time.Time) error {
	t := table.New()
	t.Row("Mesh", p.SSID)
	parameterRows(t, p.MeshParameters)
	if p.Serial != 0 {
		t.People("Document", fmt.Sprintf("%d of epoch %d", p.Serial, p.Epoch))
		t.Programs("Document", p.Serial)
		t.Programs("Epoch", p.Epoch)
	}
	if p.Issued != nil {
		t.Row("Issued", table.Age(now, *p.Issued))
	}
	t.Row("Change", phrase(p))
	if p.Outcome != "" {
		t.Row("Last change", p.Outcome)
	}
	tables := []section{{1, t}}
	if p.Target != nil {
		to := table.New("CHANGES TO", "VALUE")
		parameterRows(to, *p.Target)
		tables = append(tables, section{1, to})
	}
	nodes := table.New("NODE", "AWAITED", "PREPARED", "SWITCHED", "SAID")
	for _, n := range p.Nodes {
		var said table.Cell
		if n.Said != nil {
			said = table.Age(now, *n.Said)
		}
		nodes.Row(nameOf(names, n.Node), yes(n.Awaited), yes(n.Prepared), yes(n.Switched), said)
	}
	former := table.New("FORMER CHANNEL", "MHZ", "ROUTING", "UNTIL")
	for _, f := range p.Former {
		former.Row(strconv.Itoa(f.Channel), strconv.Itoa(f.Width), f.Routing, f.Until)
	}
	return writeTables(w, append(tables, section{len(p.Nodes), nodes}, section{len(p.Former), former}))
}

// yes leaves out what is not: a table of it is mostly empty.
func yes(b bool) table.Cell {
	c := table.Yes(b)
	if !b {
		return table.Two("", c.Programs())
	}
	return c
}

// phrase says how far a change is.
func phrase(p model.MeshProfile) string {
	secret := ""
	if p.Secret {
		secret = ", of the secret too"
	}
	switch p.Phase {
	case "preparing":
		return "the nodes get the new profile" + secret
	case "ordered":
		return "all switch in a moment" + secret
	case "settling":
		return "all have switched, the nodes are awaited" + secret
	case "recalling", "recalled":
		return "too few nodes came, all are called back"
	}
	if p.Secret {
		return "another secret is due"
	}
	return "none is under way"
}

func (a *app) meshRotateKey() *cobra.Command {
	c := a.askDevice("rotate-key", "draw another overlay key for a device", cobra.NoArgs, func(ctx context.Context, from air, _ []string) error {
		d, ok := from.(device)
		if !ok {
			return &usageError{errors.New("a device changes its own key: name it with --node, or say --local on it")}
		}
		if err := d.RotateKey(ctx); err != nil {
			return err
		}
		fmt.Fprintln(a.env.Stderr, "Another key is drawn; it is in use when all others have heard of it (event overlay.rekeyed).")
		return nil
	})
	c.Long = `Rotate-key has a device draw another key for its overlay (WireGuard), tell all
others of it, and use it when they have heard: after some minutes, and without a
gap. The device is that of --node, or with --local the one that haloctl runs on.`
	return c
}
