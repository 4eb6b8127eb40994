package apitype

import (
	"time"

	"halo.internal/model"
)

// Neuron is a logical unit of the brain, as it was put together: its health is
// NeuronHealth.
type Neuron struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Needs       []model.Component `json:"needs,omitempty" nullable:"false" enum:"sensor,thought,memory,send" doc:"components without which it does not work; left out: those that something is assigned to"`
	Components  []Component       `json:"components" doc:"all four"`
	Created     time.Time         `json:"created"`
	By          string            `json:"by" doc:"who made it"`
}

// Component is one of a neuron's and what it is assigned to.
type Component struct {
	Component model.Component `json:"component" enum:"sensor,thought,memory,send"`
	Name      string          `json:"name" doc:"brain-<component>-<neuron>; with .halo behind it, it leads to the devices of its parts" example:"brain-sensor-n01"`
	Parts     []model.Part    `json:"parts"`
}

// NeuronList is a page of neurons.
type NeuronList struct {
	Items []Neuron `json:"items"`
	Next  string   `json:"next,omitempty"`
}

// CreateNeuron is the body of POST /v1/brain/neurons.
type CreateNeuron struct {
	Name        string            `json:"name" minLength:"1" maxLength:"49" pattern:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" doc:"so long that brain-thought-<name> is one label of DNS"`
	Description string            `json:"description,omitempty" maxLength:"256"`
	Needs       []model.Component `json:"needs,omitempty" maxItems:"4" nullable:"false" enum:"sensor,thought,memory,send" doc:"components without which it does not work; left out: those that something is assigned to"`
}

// UpdateNeuron is the body of PATCH /v1/brain/neurons/{id}: what is left out stays.
type UpdateNeuron struct {
	Name        *string            `json:"name,omitempty" minLength:"1" maxLength:"49" pattern:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"`
	Description *string            `json:"description,omitempty" maxLength:"256"`
	Needs       *[]model.Component `json:"needs,omitempty" maxItems:"4" nullable:"false" enum:"sensor,thought,memory,send" doc:"none: those that something is assigned to"`
}

// AssignComponent is the body of PUT /v1/brain/neurons/{id}/components/{component}.
type AssignComponent struct {
	Parts []model.Part `json:"parts" maxItems:"256" nullable:"false" doc:"all of them: what is not named is assigned to it no more"`
}

// NeuronState tells how a neuron, a component or the brain is.
type NeuronState string

// States, best first: what is not known may be worse than what works with less.
const (
	NeuronOK       NeuronState = "ok"
	NeuronDegraded NeuronState = "degraded" // works with less
	NeuronUnknown  NeuronState = "unknown"
	NeuronFailed   NeuronState = "failed"
)

// Brain is how all neurons are.
type Brain struct {
	State    NeuronState       `json:"state" enum:"ok,degraded,unknown,failed" doc:"of the worst neuron; unknown while there is none"`
	Neurons  int               `json:"neurons" doc:"how many there are"`
	OK       int               `json:"ok"`
	Degraded int               `json:"degraded"`
	Unknown  int               `json:"unknown"`
	Failed   int               `json:"failed"`
	Devices  int               `json:"devices" doc:"how many devices have a part in one"`
	Items    []NeuronCondition `json:"items" doc:"a page of neurons, by name"`
	Next     string            `json:"next,omitempty"`
}

// NeuronCondition is how a neuron is, in short.
type NeuronCondition struct {
	Name        string               `json:"name"`
	Description string               `json:"description,omitempty"`
	State       NeuronState          `json:"state" enum:"ok,degraded,unknown,failed" doc:"of the worst component that it needs"`
	Reason      string               `json:"reason,omitempty" doc:"the first thing that is lacking in the worst component that it needs"`
	Components  []ComponentCondition `json:"components" doc:"all four"`
}

// ComponentCondition is how a component is.
type ComponentCondition struct {
	Component model.Component `json:"component" enum:"sensor,thought,memory,send"`
	Needed    bool            `json:"needed" doc:"the neuron does not work without it"`
	State     NeuronState     `json:"state" enum:"ok,degraded,unknown,failed" doc:"ok: all parts are; degraded: some are live; failed: none is; unknown: none is known to be"`
	Parts     int             `json:"parts"`
	Live      int             `json:"live" doc:"parts that are there and do not say that they have failed"`
}

// NeuronHealth is how a neuron is, and why.
type NeuronHealth struct {
	NeuronCondition
	Lacks []Lack `json:"lacks" doc:"what is lacking where, in the order of the components; 64 at most"`
	More  int    `json:"more,omitempty" doc:"how much more is lacking"`
}

// Lack is something that is lacking in a component.
type Lack struct {
	Component model.Component `json:"component" enum:"sensor,thought,memory,send"`
	Part      *model.Part     `json:"part,omitempty" doc:"absent where nothing is assigned to a component that is needed"`
	Node      string          `json:"node,omitempty" doc:"name of the device that the part is, or is on"`
	State     NeuronState     `json:"state" enum:"degraded,unknown,failed"`
	Lacks     string          `json:"lacks" doc:"in words"`
}
