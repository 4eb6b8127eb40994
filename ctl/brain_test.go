package ctl_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// weather is a neuron that somebody on the air may have described.
func weather() apitype.Neuron {
	n := apitype.Neuron{Name: "weather", Description: "mast\x1b[31m", Needs: []model.Component{model.Sensor, model.Memory}, Created: ago(3 * time.Hour), By: "user:admin"}
	parts := map[model.Component][]model.Part{
		model.Sensor: {{Kind: model.PartDevice, ID: nodeID}, {Kind: model.PartProcess, ID: model.ProcessID("halo-agent", gatewayID)}},
		model.Send:   {{Kind: model.PartProcess, ID: model.ProcessID("halo-agent", waitingID)}},
	}
	for _, c := range model.Components() {
		n.Components = append(n.Components, apitype.Component{Component: c, Name: model.ComponentName(c, n.Name), Parts: parts[c]})
	}
	return n
}

func weatherHealth() apitype.NeuronHealth {
	n := weather()
	off, gone := n.Components[0].Parts[0], n.Components[3].Parts[0]
	return apitype.NeuronHealth{
		NeuronCondition: apitype.NeuronCondition{
			Name: n.Name, Description: n.Description, State: apitype.NeuronFailed, Reason: "memory: it is needed, and nothing is assigned to it",
			Components: []apitype.ComponentCondition{
				{Component: model.Sensor, Needed: true, State: apitype.NeuronDegraded, Parts: 2, Live: 1},
				{Component: model.Thought, State: apitype.NeuronUnknown},
				{Component: model.Memory, Needed: true, State: apitype.NeuronFailed},
				{Component: model.Send, State: apitype.NeuronFailed, Parts: 1},
			},
		},
		Lacks: []apitype.Lack{
			{Component: model.Sensor, Part: &off, Node: "n01", State: apitype.NeuronFailed, Lacks: "it is offline since 2026-11-23T11:56:00Z"},
			{Component: model.Memory, State: apitype.NeuronFailed, Lacks: "it is needed, and nothing is assigned to it"},
			{Component: model.Send, Part: &gone, State: apitype.NeuronFailed, Lacks: "the network has no such device any more"},
		},
		More: 2,
	}
}

func brainOverview() apitype.Brain {
	return apitype.Brain{State: apitype.NeuronFailed, Neurons: 2, OK: 1, Failed: 1, Devices: 3, Items: []apitype.NeuronCondition{
		{Name: "n01", State: apitype.NeuronOK, Components: []apitype.ComponentCondition{
			{Component: model.Sensor, Needed: true, State: apitype.NeuronOK, Parts: 1, Live: 1}, {Component: model.Thought, State: apitype.NeuronUnknown},
			{Component: model.Memory, State: apitype.NeuronUnknown}, {Component: model.Send, State: apitype.NeuronUnknown}}},
		weatherHealth().NeuronCondition,
	}}
}

// TestNeuronsOfARealGateway are made, assigned, judged and removed.
func TestNeuronsOfARealGateway(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	u := newUser(t)
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)

	u.must(t, "brain", "add", "weather", "--description", "on the mast", "--needs", "thought,send")
	u.must(t, "brain", "add", "weather", "--description", "on the mast", "--needs", "send,thought") // again
	u.fails(t, ctl.ExitError, "another neuron weather", "brain", "add", "weather")
	u.fails(t, ctl.ExitError, "name", "brain", "add", "Weather")
	u.fails(t, ctl.ExitError, "needs", "brain", "add", "n02", "--needs", "camera")
	u.must(t, "brain", "assign", "weather", "thought", "gateway-api@gw")
	u.must(t, "brain", "assign", "weather", "memory", "gw", "halo-agent@"+d.key.ID())
	u.fails(t, ctl.ExitNotFound, "haloctl node list", "brain", "assign", "weather", "send", "n99")
	u.fails(t, ctl.ExitNotFound, "haloctl brain list", "brain", "assign", "n99", "send", "gw")
	u.fails(t, ctl.ExitError, "halo-agent, gateway-api", "brain", "assign", "weather", "send", "halo-field@gw")
	u.fails(t, ctl.ExitUsage, "sensor, thought, memory or send", "brain", "assign", "weather", "camera", "gw")

	var shown struct {
		apitype.Neuron
		Health apitype.NeuronHealth `json:"health"`
	}
	show := func() {
		t.Helper()
		shown.Neuron, shown.Health = apitype.Neuron{}, apitype.NeuronHealth{}
		if err := json.Unmarshal([]byte(u.must(t, "brain", "show", "weather", "--json")), &shown); err != nil {
			t.Fatal(err)
		}
	}
	show()
	if h := shown.Health; h.State != apitype.NeuronFailed || h.Reason != "send: it is needed, and nothing is assigned to it" || h.Components[1].Live != 1 || h.Components[2].Parts != 2 {
		t.Errorf("got %+v", h)
	}
	u.must(t, "brain", "set", "weather", "--needs", "none", "--description", "")
	u.fails(t, ctl.ExitUsage, "--description", "brain", "set", "weather")
	show()
	if shown.Needs != nil || shown.Description != "" || shown.Health.State != apitype.NeuronDegraded {
		t.Errorf("got %+v", shown)
	}
	if out := u.must(t, "brain", "list", "--on", "gw"); !strings.Contains(out, "weather  degraded") {
		t.Errorf("brain list:\n%s", out)
	}
	stop()
	d.start(t)
	u.must(t, "brain", "unassign", "weather", "memory", "halo-agent@gw", "gw")
	u.fails(t, ctl.ExitNotFound, "haloctl brain show weather", "brain", "unassign", "weather", "memory", "gw")
	u.must(t, "brain", "set", "weather", "--name", "n01")
	u.fails(t, ctl.ExitNotFound, "haloctl brain list", "brain", "show", "weather")
	u.must(t, "brain", "remove", "n01")
	u.fails(t, ctl.ExitNotFound, "haloctl brain list", "brain", "remove", "n01")
	if log := u.must(t, "audit", "list", "--limit", "100"); strings.Count(log, "assign-part") < 4 || !strings.Contains(log, "brain-memory-weather process halo-agent@gw") {
		t.Errorf("audit log:\n%s", log)
	}
}
