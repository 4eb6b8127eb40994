package brain

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// described is a judgement as "failed; sensor degraded 1/2 needed: mast degraded: gps".
func described(h apitype.NeuronHealth) string {
	out := []string{string(h.State)}
	for _, c := range h.Components {
		if c.Parts == 0 && !c.Needed {
			if c.State != apitype.NeuronUnknown {
				out = append(out, fmt.Sprintf("%s without parts is %s", c.Component, c.State))
			}
			continue
		}
		s := fmt.Sprintf("%s %s %d/%d", c.Component, c.State, c.Live, c.Parts)
		if !c.Needed {
			s += " not needed"
		}
		var lacks []string
		for _, l := range h.Lacks {
			if l.Component == c.Component {
				of := l.Node
				if l.Part != nil {
					if of == "" {
						of = "?"
					}
					if _, process := l.Part.Device(); process != "" {
						of += " " + process
					}
				}
				lacks = append(lacks, strings.TrimSpace(fmt.Sprintf("%s %s (%s)", of, l.State, l.Lacks)))
			}
		}
		if len(lacks) > 0 {
			s += ": " + strings.Join(lacks, ", ")
		}
		out = append(out, s)
	}
	if h.Reason != "" {
		out = append(out, "reason "+h.Reason)
	}
	return strings.Join(out, "; ")
}

// TestHealth is the rule of the package's documentation, in cases. An hour has passed
// since the gateway's start.
func TestHealth(t *testing.T) {
	start := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	heard := func(at time.Duration) *time.Time { h := start.Add(at); return &h }
	with := func(name string, change func(*apitype.Node)) apitype.Node {
		n := node(name)
		n.LastSeen = heard(0)
		change(&n)
		return n
	}
	nodes := map[string]apitype.Node{}
	for _, n := range []apitype.Node{
		node("ok"), node("fine"),
		with("less", func(n *apitype.Node) { n.State, n.Missing = "degraded", "gps" }),
		with("starting", func(n *apitype.Node) { n.State, n.Missing = "starting", "identity" }),
		with("ill", func(n *apitype.Node) { n.State, n.Missing = "failed", "halo-mesh" }),
		with("silent", func(n *apitype.Node) { n.State = "" }),
		with("odd", func(n *apitype.Node) { n.State = "purple" }),
		with("off", func(n *apitype.Node) { n.Online, n.LastSeen = false, heard(time.Minute) }),
		with("offbefore", func(n *apitype.Node) { n.Online, n.LastSeen = false, heard(-time.Hour) }),
		with("never", func(n *apitype.Node) { n.Online, n.LastSeen = false, nil }),
		with("revoked", func(n *apitype.Node) { n.Revoked = true }),
		{ID: id("gw"), Name: "gw", Role: model.RoleGateway, Online: true, State: "ok"},
		{ID: id("gwalone"), Name: "gwalone", Role: model.RoleGateway},
	} {
		nodes[n.ID] = n
	}
	const off = "it is offline since 2026-11-28T09:01:00Z"
	for _, tc := range []struct {
		name  string
		needs string
		parts string // "sensor ok,less; memory gateway-api@gw"
		want  string
	}{
		{"nothing", "", "", "unknown; reason nothing is assigned to it"},
		{"one part", "", "sensor ok", "ok; sensor ok 1/1"},
		{"two", "", "sensor ok,fine", "ok; sensor ok 2/2"},
		{"one works with less", "", "sensor ok,less", "degraded; sensor degraded 2/2: less degraded (degraded: gps); reason sensor less: degraded: gps"},
		{"it starts", "", "sensor starting", "degraded; sensor degraded 1/1: starting degraded (starting: identity); reason sensor starting: starting: identity"},
		{"one of two is off", "", "sensor ok,off", "degraded; sensor degraded 1/2: off failed (" + off + "); reason sensor off: " + off},
		{"no live part", "", "sensor off,ill", "failed; sensor failed 0/2: off failed (" + off + "), ill failed (failed: halo-mesh); reason sensor off: " + off},
		{"off since before the start", "", "sensor offbefore", "failed; sensor failed 0/1: offbefore failed (it is offline since 2026-11-28T08:00:00Z); reason sensor offbefore: it is offline since 2026-11-28T08:00:00Z"},
		{"revoked", "", "sensor revoked", "failed; sensor failed 0/1: revoked failed (it was revoked); reason sensor revoked: it was revoked"},
		{"forgotten", "", "sensor forgotten", "failed; sensor failed 0/1: ? failed (the network has no such device any more); reason sensor " + id("forgotten") + ": the network has no such device any more"},
		{"never heard", "", "sensor never", "unknown; sensor unknown 0/1: never unknown (it has never been heard); reason sensor never: it has never been heard"},
		{"has not said anything", "", "sensor silent", "unknown; sensor unknown 0/1: silent unknown (it has not said yet how it is); reason sensor silent: it has not said yet how it is"},
		{"says what nobody knows", "", "sensor odd", "unknown; sensor unknown 0/1: odd unknown (it says that it is purple); reason sensor odd: it says that it is purple"},
		{"one off, one never heard", "", "sensor off,never", "unknown; sensor unknown 0/2: off failed (" + off + "), never unknown (it has never been heard); reason sensor never: it has never been heard"},
		{"one well, one never heard", "", "sensor ok,never", "degraded; sensor degraded 1/2: never unknown (it has never been heard); reason sensor never: it has never been heard"},

		{"worst of two components", "", "sensor less; send off", "failed; sensor degraded 1/1: less degraded (degraded: gps); send failed 0/1: off failed (" + off + "); reason send off: " + off},
		{"unknown is worse than degraded", "", "sensor less; send never", "unknown; sensor degraded 1/1: less degraded (degraded: gps); send unknown 0/1: never unknown (it has never been heard); reason send never: it has never been heard"},
		{"failed is worse than unknown", "", "sensor never; memory ok; send off", "failed; sensor unknown 0/1: never unknown (it has never been heard); memory ok 1/1; send failed 0/1: off failed (" + off + "); reason send off: " + off},
		{"one that is not needed", "sensor", "sensor ok; send off", "ok; sensor ok 1/1; send failed 0/1 not needed: off failed (" + off + ")"},
		{"one that is needed has no part", "sensor send", "sensor ok", "failed; sensor ok 1/1; send failed 0/0: failed (it is needed, and nothing is assigned to it); reason send: it is needed, and nothing is assigned to it"},
		{"all four", "sensor thought memory send", "sensor ok; thought ok; memory ok; send ok", "ok; sensor ok 1/1; thought ok 1/1; memory ok 1/1; send ok 1/1"},
		{"one board hosts all, and is off", "", "sensor off; thought off; memory off; send off",
			"failed; sensor failed 0/1: off failed (" + off + "); thought failed 0/1: off failed (" + off + "); memory failed 0/1: off failed (" + off + "); send failed 0/1: off failed (" + off + "); reason sensor off: " + off},

		{"agent of a node that is there", "", "sensor halo-agent@ok", "ok; sensor ok 1/1"},
		{"agent speaks for a mesh that is ill", "", "sensor halo-agent@ill,halo-mesh@ill", "degraded; sensor degraded 1/2: ill halo-mesh failed (failed: halo-mesh); reason sensor ill halo-mesh: failed: halo-mesh"},
		{"processes of a node that is off", "", "sensor halo-agent@off,halo-field@off", "failed; sensor failed 0/2: off halo-agent failed (" + off + "), off halo-field failed (" + off + "); reason sensor off halo-agent: " + off},
		{"of a revoked one", "", "sensor halo-agent@revoked", "failed; sensor failed 0/1: revoked halo-agent failed (it was revoked); reason sensor revoked halo-agent: it was revoked"},
		{"of one that is forgotten", "", "sensor halo-agent@forgotten", "failed; sensor failed 0/1: ? halo-agent failed (the network has no such device any more); reason sensor " + id("forgotten") + " halo-agent: the network has no such device any more"},
		{"mesh of a node", "", "sensor halo-mesh@less", "degraded; sensor degraded 1/1: less halo-mesh degraded (degraded: gps); reason sensor less halo-mesh: degraded: gps"},
		{"of which nobody tells", "", "sensor halo-field@ok", "unknown; sensor unknown 0/1: ok halo-field unknown (nobody tells how it is); reason sensor ok halo-field: nobody tells how it is"},
		{"the gateway's own", "", "thought gateway-api@gw; memory gw; send halo-agent@gw", "ok; thought ok 1/1; memory ok 1/1; send ok 1/1"},
		{"the gateway's mesh", "", "send halo-mesh@gw", "degraded; send degraded 1/1: gw halo-mesh degraded (degraded: a socket); reason send gw halo-mesh: degraded: a socket"},
		{"a gateway without its agent", "", "memory gwalone; send halo-agent@gwalone", "failed; memory degraded 1/1: gwalone degraded (halo-agent: its stream is not open); send failed 0/1: gwalone halo-agent failed (its stream is not open); reason send gwalone halo-agent: its stream is not open"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &Brain{started: start, since: time.Now().Add(-time.Hour), Config: Config{Own: func(p string) (health.State, string, bool) {
				switch p {
				case "gateway-api":
					return health.OK, "", true
				case "halo-mesh":
					return health.Degraded, "a socket", true
				}
				return "", "", false
			}}}
			if got := described(b.judge(assembled(tc.needs, tc.parts), nodes)); got != tc.want {
				t.Errorf("\ngot  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// assembled is a neuron as TestHealth writes it, its parts in order.
func assembled(needs, parts string) apitype.Neuron {
	n := apitype.Neuron{Name: "n01"}
	for _, c := range strings.Fields(needs) {
		n.Needs = append(n.Needs, model.Component(c))
	}
	for _, c := range model.Components() {
		of := apitype.Component{Component: c}
		for p := range strings.SplitSeq(parts, ";") {
			word, list, _ := strings.Cut(strings.TrimSpace(p), " ")
			if word != string(c) {
				continue
			}
			for ref := range strings.SplitSeq(list, ",") {
				process, device, at := strings.Cut(ref, "@")
				if !at {
					of.Parts = append(of.Parts, model.Part{Kind: model.PartDevice, ID: id(ref)})
				} else {
					of.Parts = append(of.Parts, model.Part{Kind: model.PartProcess, ID: model.ProcessID(process, id(device))})
				}
			}
		}
		n.Components = append(n.Components, of)
	}
	return n
}

// TestAStartOfTheGateway is no failure of its nodes: they are on their way, for two
// minutes.
func TestAStartOfTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Clock: clock.New(time.Now, time.Time{}), Own: func(string) (health.State, string, bool) { return "", "", false }})
		before := time.Now().Add(-time.Hour)
		n := node("mast")
		n.Online, n.LastSeen = false, &before
		for _, step := range []struct {
			wait time.Duration
			do   func()
			want apitype.NeuronState
		}{
			{0, func() {}, apitype.NeuronUnknown},
			{119 * time.Second, func() {}, apitype.NeuronUnknown},
			{2 * time.Second, func() {}, apitype.NeuronFailed},
			{0, func() { n.Online = true }, apitype.NeuronOK},
			{0, func() { now := time.Now(); n.Online, n.LastSeen = false, &now }, apitype.NeuronFailed},
		} {
			time.Sleep(step.wait)
			step.do()
			if is := b.device(n, true); is.state != step.want {
				t.Errorf("after %s: got %s (%s), want %s", step.wait, is.state, is.lacks, step.want)
			}
		}
		b = New(Config{Clock: b.Clock})
		now := time.Now()
		n.Online, n.LastSeen = false, &now // it came after the start, and went
		if is := b.device(n, true); is.state != apitype.NeuronFailed {
			t.Errorf("gone since the start: %s", is.state)
		}
	})
}

func TestLacksAreBounded(t *testing.T) {
	b := &Brain{}
	var list []string
	for i := range 26 {
		for k := range 4 {
			list = append(list, "x"+string(rune('a'+i))+string(rune('a'+k)))
		}
	}
	h := b.judge(assembled("", "sensor "+strings.Join(list, ",")), nil)
	if len(h.Lacks) != maxLacks || h.More != 104-maxLacks || h.Components[0].Parts != 104 {
		t.Errorf("%d are told of, and %d more", len(h.Lacks), h.More)
	}
}

func TestOverview(t *testing.T) {
	gone := node("gone")
	gone.Revoked = true
	less := node("less")
	less.State = "degraded"
	f := newFixture(t, node("mast"), less, gone, node("hill"))
	ctx := t.Context()
	if o, err := f.Overview(ctx, "", "", 10); err != nil || o.State != apitype.NeuronUnknown || o.Neurons != 0 || o.Items == nil {
		t.Errorf("nothing: %+v, %v", o, err)
	}
	f.neuron("a", nil, "sensor mast")
	f.neuron("b", nil, "sensor mast", "send less")
	overview := func(device, cursor string, limit int) string {
		t.Helper()
		o, err := f.Overview(ctx, device, cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		s := fmt.Sprintf("%s of %d, ok %d, degraded %d, unknown %d, failed %d, devices %d:", o.State, o.Neurons, o.OK, o.Degraded, o.Unknown, o.Failed, o.Devices)
		for _, i := range o.Items {
			s += fmt.Sprintf(" %s %s", i.Name, i.State)
		}
		return s + " next " + o.Next
	}
	for _, tc := range []struct {
		device, cursor string
		limit          int
		add            string
		want           string
	}{
		{"", "", 10, "", "degraded of 2, ok 1, degraded 1, unknown 0, failed 0, devices 2: a ok b degraded next "},
		{"", "", 10, "c", "unknown of 3, ok 1, degraded 1, unknown 1, failed 0, devices 2: a ok b degraded c unknown next "},
		{"", "", 2, "", "unknown of 3, ok 1, degraded 1, unknown 1, failed 0, devices 2: a ok b degraded next b"},
		{"", "b", 2, "", "unknown of 3, ok 1, degraded 1, unknown 1, failed 0, devices 2: c unknown next "},
		{"less", "", 2, "", "unknown of 3, ok 1, degraded 1, unknown 1, failed 0, devices 2: b degraded next "},
		{id("mast"), "", 1, "", "unknown of 3, ok 1, degraded 1, unknown 1, failed 0, devices 2: a ok next a"},
		{"hill", "", 1, "", "unknown of 3, ok 1, degraded 1, unknown 1, failed 0, devices 2: next "},
	} {
		if tc.add != "" {
			f.neuron(tc.add, nil)
		}
		if got := overview(tc.device, tc.cursor, tc.limit); got != tc.want {
			t.Errorf("%q after %q: got %s\nwant %s", tc.device, tc.cursor, got, tc.want)
		}
	}
	if _, err := f.Overview(ctx, "nobody", "", 1); err == nil {
		t.Error("a device that there is not")
	}
	h, err := f.Health(ctx, "b")
	if err != nil || h.State != apitype.NeuronDegraded || len(h.Lacks) != 1 {
		t.Errorf("health: %+v, %v", h, err)
	}
	if _, err := f.Health(ctx, "nobody"); err == nil {
		t.Error("health of none")
	}
}

// BenchmarkOverview judges as many neurons as a network of 250 nodes has when each
// hosts one.
func BenchmarkOverview(b *testing.B) {
	nodes := map[string]apitype.Node{}
	var names []string
	for i := range 250 {
		n := node("m" + string(rune('a'+i/26)) + string(rune('a'+i%26)))
		nodes[n.ID] = n
		names = append(names, n.Name)
	}
	brain := &Brain{}
	var list []apitype.Neuron
	for _, n := range names {
		list = append(list, assembled("", "sensor "+n+"; thought "+n+"; memory "+names[0]+"; send "+n+","+names[1]))
	}
	for b.Loop() {
		for _, n := range list {
			brain.judge(n, nodes)
		}
	}
}
