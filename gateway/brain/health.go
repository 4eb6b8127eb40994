package brain

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const (
	// hearWait is how long after a start of gateway-api a node that has not come yet may
	// still be on its way: it tries again within a minute.
	hearWait = 2 * time.Minute

	maxLacks = 64 // that are told of one neuron
)

// rank orders states, the worst last.
func rank(s apitype.NeuronState) int {
	return slices.Index([]apitype.NeuronState{apitype.NeuronOK, apitype.NeuronDegraded, apitype.NeuronUnknown, apitype.NeuronFailed}, s)
}

func worse(a, b apitype.NeuronState) bool { return rank(a) > rank(b) }

// condition is how a part is, and what it lacks unless it is ok.
type condition struct {
	state apitype.NeuronState
	lacks string
}

func (c condition) live() bool {
	return c.state == apitype.NeuronOK || c.state == apitype.NeuronDegraded
}

// nodes returns all nodes by canonical ID.
func (b *Brain) nodes(ctx context.Context) (map[string]apitype.Node, error) {
	all := map[string]apitype.Node{}
	for cursor := ""; ; {
		l, err := b.Devices.Nodes(ctx, cursor, 500)
		if err != nil {
			return nil, err
		}
		for _, n := range l.Items {
			all[n.ID] = n
		}
		if cursor = l.Next; cursor == "" {
			return all, nil
		}
	}
}

// device judges a node; known is false of one that the network does not have.
func (b *Brain) device(n apitype.Node, known bool) condition {
	switch {
	case !known:
		return condition{apitype.NeuronFailed, "the network has no such device any more"}
	case n.Revoked:
		return condition{apitype.NeuronFailed, "it was revoked"}
	case n.Online:
		return said(health.State(n.State), n.Missing)
	case n.Role == model.RoleGateway: // who judges is there
		return condition{apitype.NeuronDegraded, "halo-agent: its stream is not open"}
	case n.LastSeen == nil:
		return condition{apitype.NeuronUnknown, "it has never been heard"}
	case n.LastSeen.Before(b.started) && time.Since(b.since) < hearWait:
		return condition{apitype.NeuronUnknown, "it has not been heard since the gateway started"}
	}
	return condition{apitype.NeuronFailed, "it is offline since " + n.LastSeen.UTC().Format(time.RFC3339)}
}

// said is what a health graph says of itself.
func said(s health.State, missing string) condition {
	text := string(s)
	if missing != "" {
		text += ": " + missing
	}
	switch s {
	case health.OK:
		return condition{state: apitype.NeuronOK}
	case health.Degraded, health.Starting:
		return condition{apitype.NeuronDegraded, text}
	case health.Failed:
		return condition{apitype.NeuronFailed, text}
	case "":
		return condition{apitype.NeuronUnknown, "it has not said yet how it is"}
	}
	return condition{apitype.NeuronUnknown, "it says that it is " + text}
}

// part judges a part, whose device is n.
func (b *Brain) part(p model.Part, n apitype.Node, known bool) condition {
	device := b.device(n, known)
	switch p.Kind {
	case model.PartDevice:
		return device
	case model.PartProcess:
		_, process := p.Device()
		return b.process(process, n, known, device)
	case model.PartSensor:
		_, key := p.Device()
		return b.chip(key, n, known, device)
	}
	return condition{apitype.NeuronUnknown, "this gateway does not know what a " + string(p.Kind) + " is"}
}

// chip judges a sensor of a device that is in that condition: of one that is not there
// nobody can tell more.
func (b *Brain) chip(key string, n apitype.Node, known bool, device condition) condition {
	if !known || n.Revoked || !device.live() {
		return device
	}
	s, there := b.sensor(key, n.ID)
	switch {
	case !there:
		return condition{apitype.NeuronFailed, "the device has no such sensor any more"}
	case s.State == model.SensorOK && s.Problem == "":
		return condition{state: apitype.NeuronOK}
	case s.State == model.SensorOK:
		return condition{apitype.NeuronDegraded, s.Problem}
	case s.State == model.SensorOffered:
		return condition{apitype.NeuronFailed, "nobody has said what it is"}
	}
	return condition{apitype.NeuronFailed, strings.TrimSuffix("it is "+string(s.State)+": "+s.Problem, ": ")}
}

// sensor is what is known of a sensor.
func (b *Brain) sensor(key, node string) (model.SensorChip, bool) {
	if b.Sensors == nil {
		return model.SensorChip{}, false
	}
	return b.Sensors(key, node)
}

// process judges a process of a device that is in that condition.
func (b *Brain) process(name string, n apitype.Node, known bool, device condition) condition {
	if !known || n.Revoked {
		return device
	}
	if n.Role == model.RoleGateway {
		if s, lacks, told := b.Own(name); told {
			return said(s, lacks)
		}
	}
	switch {
	case name == "halo-agent" && n.Online:
		return condition{state: apitype.NeuronOK}
	case name == "halo-agent" && n.Role == model.RoleGateway:
		return condition{apitype.NeuronFailed, "its stream is not open"}
	case !device.live() || name == "halo-mesh":
		return device
	}
	return condition{apitype.NeuronUnknown, "nobody tells how it is"}
}

// judge says how a neuron is, by its parts.
func (b *Brain) judge(n apitype.Neuron, nodes map[string]apitype.Node) apitype.NeuronHealth {
	h := apitype.NeuronHealth{NeuronCondition: apitype.NeuronCondition{Name: n.Name, Description: n.Description}, Lacks: []apitype.Lack{}}
	needs := 0
	for _, c := range n.Components {
		k := apitype.ComponentCondition{Component: c.Component, Parts: len(c.Parts), Needed: slices.Contains(n.Needs, c.Component) || len(n.Needs) == 0 && len(c.Parts) > 0}
		var lacks []apitype.Lack
		unknown, whole := false, len(c.Parts) > 0
		for _, p := range c.Parts {
			id, _ := p.Device()
			node, known := nodes[id]
			is := b.part(p, node, known)
			if is.live() {
				k.Live++
			}
			unknown = unknown || is.state == apitype.NeuronUnknown
			if is.state != apitype.NeuronOK {
				whole = false
				lacks = append(lacks, apitype.Lack{Component: c.Component, Part: &p, Node: node.Name, State: is.state, Lacks: is.lacks})
			}
		}
		switch {
		case whole:
			k.State = apitype.NeuronOK
		case k.Live > 0:
			k.State = apitype.NeuronDegraded
		case len(c.Parts) == 0 && k.Needed:
			k.State = apitype.NeuronFailed
			lacks = append(lacks, apitype.Lack{Component: c.Component, State: k.State, Lacks: "it is needed, and nothing is assigned to it"})
		case unknown || len(c.Parts) == 0:
			k.State = apitype.NeuronUnknown
		default:
			k.State = apitype.NeuronFailed
		}
		h.Components = append(h.Components, k)
		h.Lacks = append(h.Lacks, lacks...)
		if !k.Needed {
			continue
		}
		if needs++; needs == 1 || worse(k.State, h.State) {
			h.State, h.Reason = k.State, reason(k.State, lacks)
		}
	}
	if needs == 0 {
		h.State, h.Reason = apitype.NeuronUnknown, "nothing is assigned to it"
	}
	h.More = max(0, len(h.Lacks)-maxLacks)
	h.Lacks = h.Lacks[:len(h.Lacks)-h.More]
	return h
}

// reason is in a line why a component is in that state: what is lacking that is unknown
// too, or the worst, the first of several.
func reason(s apitype.NeuronState, lacks []apitype.Lack) string {
	if len(lacks) == 0 {
		return ""
	}
	l := slices.MaxFunc(lacks, func(a, b apitype.Lack) int { return cmp.Compare(rank(a.State), rank(b.State)) })
	if i := slices.IndexFunc(lacks, func(l apitype.Lack) bool { return l.State == apitype.NeuronUnknown }); s == apitype.NeuronUnknown && i >= 0 {
		l = lacks[i]
	}
	words := []string{string(l.Component)}
	if l.Part != nil {
		id, process := l.Part.Device()
		if words = append(words, cmp.Or(l.Node, id)); process != "" {
			words = append(words, process)
		}
	}
	return strings.Join(words, " ") + ": " + l.Lacks
}

// Health says how a neuron is, and why.
func (b *Brain) Health(ctx context.Context, name string) (apitype.NeuronHealth, error) {
	n, err := b.Neuron(ctx, name)
	if err != nil {
		return apitype.NeuronHealth{}, err
	}
	nodes, err := b.nodes(ctx)
	if err != nil {
		return apitype.NeuronHealth{}, err
	}
	return b.judge(n, nodes), nil
}

// Overview says how all neurons are. The page is of those in which the device has a
// part that is named, by canonical ID or name, or of all.
func (b *Brain) Overview(ctx context.Context, device, cursor string, limit int) (apitype.Brain, error) {
	o := apitype.Brain{State: apitype.NeuronUnknown, Items: []apitype.NeuronCondition{}}
	if device != "" {
		n, err := b.Devices.Node(ctx, device)
		if err != nil {
			return o, err
		}
		device = n.ID
	}
	all, err := b.load(ctx)
	if err != nil {
		return o, err
	}
	nodes, err := b.nodes(ctx)
	if err != nil {
		return o, err
	}
	devices := map[string]bool{}
	for i, n := range all {
		here := device == ""
		for _, c := range n.Components {
			for _, id := range devicesOf(c.Parts) {
				devices[id] = true
				here = here || id == device
			}
		}
		k := b.judge(n, nodes).NeuronCondition
		if count(&o, k.State); i == 0 || worse(k.State, o.State) {
			o.State = k.State
		}
		switch {
		case !here || n.Name <= cursor:
		case len(o.Items) == limit:
			o.Next = o.Items[limit-1].Name
		default:
			o.Items = append(o.Items, k)
		}
	}
	o.Devices = len(devices)
	return o, nil
}

func count(o *apitype.Brain, s apitype.NeuronState) {
	o.Neurons++
	switch s {
	case apitype.NeuronOK:
		o.OK++
	case apitype.NeuronDegraded:
		o.Degraded++
	case apitype.NeuronUnknown:
		o.Unknown++
	case apitype.NeuronFailed:
		o.Failed++
	}
}
