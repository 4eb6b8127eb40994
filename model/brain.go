package model

import (
	"fmt"
	"strings"
)

// Component is one of the roles that a neuron has.
type Component string

// Components of a neuron.
const (
	Sensor  Component = "sensor"  // gathers
	Thought Component = "thought" // decides, routes
	Memory  Component = "memory"  // stores
	Send    Component = "send"    // outputs
)

// Components returns all of them, in the order in which a reading goes through them.
func Components() []Component { return []Component{Sensor, Thought, Memory, Send} }

// Valid tells whether it is one of Components.
func (c Component) Valid() bool {
	switch c {
	case Sensor, Thought, Memory, Send:
		return true
	}
	return false
}

// A component's name is brain-<component>-<neuron>, which is one label of DNS: 63
// octets (RFC 1035, 2.3.4), so that a neuron's own name has what the longest
// component leaves of it.
const (
	brainPrefix   = "brain-"
	MaxNeuronName = 63 - len(brainPrefix) - len(Thought) - len("-") // octets
)

// CheckNeuronName returns an error unless the name can stand in those of all its
// components: letters, digits and hyphens, a letter or digit at either end
// (RFC 1123, 2.1), small letters alone.
func CheckNeuronName(name string) error {
	if name == "" || len(name) > MaxNeuronName || name[0] == '-' || name[len(name)-1] == '-' ||
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("expected the name of a neuron: 1 to %d small letters, digits and hyphens, no hyphen at either end; got %.70q", MaxNeuronName, name)
	}
	return nil
}

// ComponentName returns what a component of a neuron is called, such as
// brain-sensor-n01. Its name below .halo is that too.
func ComponentName(c Component, neuron string) string {
	return brainPrefix + string(c) + "-" + neuron
}

// ParseComponentName reads a name that ComponentName could have made.
func ParseComponentName(name string) (c Component, neuron string, err error) {
	rest, ok := strings.CutPrefix(name, brainPrefix)
	word, neuron, hyphen := strings.Cut(rest, "-")
	if c = Component(word); !ok || !hyphen || !c.Valid() || CheckNeuronName(neuron) != nil {
		return "", "", fmt.Errorf("expected brain-<component>-<neuron>, such as brain-sensor-n01; got %.80q", name)
	}
	return c, neuron, nil
}

// PartKind says what a component can be assigned to.
type PartKind string

// Kinds of parts.
const (
	PartDevice  PartKind = "device"  // a node, by its canonical ID
	PartProcess PartKind = "process" // one of its processes: halo-agent@<canonical ID>
	PartSensor  PartKind = "sensor"  // a chip on one of its buses: fe804000.i2c-76@<canonical ID>
)

// Part is something that a component is assigned to.
type Part struct {
	Kind PartKind `json:"kind" enum:"device,process,sensor"`
	ID   string   `json:"id" minLength:"1" maxLength:"128" doc:"of a device: its canonical ID; of a process: its name, an @ and that of its device, such as halo-agent@n-…; of a sensor: the ID that lists of sensors have. Where it is given, a device's name will do"`
}

// ProcessID is the ID of a process of a device.
func ProcessID(process, device string) string { return process + "@" + device }

// Device returns the device that the part is, or is on, as its ID says it, and of a
// process or a sensor its name there.
func (p Part) Device() (device, process string) {
	switch p.Kind {
	case PartProcess:
		process, device, _ = strings.Cut(p.ID, "@")
		return device, process
	case PartSensor:
		process, device, _ = SplitSensorID(p.ID)
		return device, process
	}
	return p.ID, ""
}

// ProcessesOf returns the processes that a device of that role has, besides those for
// its own upkeep.
func ProcessesOf(r Role) []string {
	if r == RoleGateway {
		return []string{"halo-mesh", "halo-agent", "gateway-api"}
	}
	return []string{"halo-mesh", "halo-agent", "halo-field"}
}

// BrainName is the name of a component and the nodes that have it
// (PUT /v1/names, the whole list each time).
type BrainName struct {
	Name  string   `json:"name" doc:"brain-<component>-<neuron>"`
	Nodes []string `json:"nodes" doc:"canonical IDs"`
}

// Bounds of a network's neurons.
const (
	MaxNeurons        = 512
	MaxComponentParts = 256  // of one component: each node of a network, once
	MaxParts          = 4096 // of all
)
