package apitype

import (
	"time"

	"halo.internal/model"
)

// Sensor is a chip on a bus of a node, with what people say of it.
type Sensor struct {
	ID       string `json:"id" doc:"its place on the node, and the node" example:"fe804000.i2c-76@n-b3x5k2m7q4w6c8d2f5ga"`
	Node     string `json:"node" doc:"canonical ID"`
	NodeName string `json:"node_name" example:"mast"`
	Online   bool   `json:"online" doc:"the node is: what is said of the sensor is so now"`
	Name     string `json:"name,omitempty" doc:"that people gave it" example:"air at the mast"`
	Place    string `json:"place,omitempty" doc:"where it is, in people's words" example:"north side, 2 m"`
	model.SensorChip
}

// SensorDetail is a sensor with what it measured last.
type SensorDetail struct {
	Sensor
	Readings []Reading `json:"readings" doc:"latest value of each of its metrics"`
}

// SensorList is a page of sensors.
type SensorList struct {
	Items []Sensor `json:"items"`
	Next  string   `json:"next,omitempty"`
}

// UpdateSensor is the body of PATCH /v1/sensors/{id}.
type UpdateSensor struct {
	Name  *string `json:"name,omitempty" maxLength:"64" example:"air at the mast"`
	Place *string `json:"place,omitempty" maxLength:"128" example:"north side, 2 m"`
}

// AssignSensor is the body of POST /v1/sensors/{id}/assignment.
type AssignSensor struct {
	Chip      string             `json:"chip" minLength:"1" maxLength:"32" doc:"template or driver; none: it is to be left alone" example:"ina219"`
	Label     string             `json:"label,omitempty" maxLength:"32" doc:"second word of its metrics; where nothing is said, the chip's name" example:"solar"`
	IntervalS float64            `json:"interval_s,omitempty" minimum:"0" maximum:"86400" doc:"seconds between two readings; 0: as the template says" example:"10"`
	Params    map[string]float64 `json:"params,omitempty" doc:"what depends on its wiring, such as a shunt"`
	ExpiresS  int                `json:"expires_s,omitempty" minimum:"1" maximum:"604800" doc:"how long it waits for a node that is off; 300 where nothing is said" example:"300"`
}

// TrySensor is the body of POST /v1/sensors/{id}/trial.
type TrySensor struct {
	Chip   string             `json:"chip" minLength:"1" maxLength:"32" doc:"template; with text, its name" example:"aht20"`
	Text   string             `json:"text,omitempty" maxLength:"32768" doc:"of a template that is not stored" example:"name = \"aht20\"\naddresses = [0x38]\n"`
	Params map[string]float64 `json:"params,omitempty" doc:"what depends on its wiring"`
}

// ScanSensors is the body of POST /v1/nodes/{id}/sensors/scan.
type ScanSensors struct {
	ExpiresS int `json:"expires_s,omitempty" minimum:"1" maximum:"604800" doc:"how long it waits for a node that is off" example:"300"`
}

// NodeInventory is what is on the buses of a node.
type NodeInventory struct {
	Node string    `json:"node" doc:"canonical ID"`
	Time time.Time `json:"time" doc:"when the node said so"`
	model.Inventory
}

// NodePower is how a node is fed.
type NodePower struct {
	Node     string           `json:"node" doc:"canonical ID"`
	NodeName string           `json:"node_name" example:"mast"`
	Online   bool             `json:"online"`
	Power    model.PowerState `json:"power"`
}

// NodePowerList is a page of them.
type NodePowerList struct {
	Items []NodePower `json:"items"`
	Next  string      `json:"next,omitempty"`
}

// SensorTemplate is a template of a chip that nodes know.
type SensorTemplate struct {
	Name    string          `json:"name" example:"aht20"`
	Title   string          `json:"title,omitempty" example:"Aosong AHT20: temperature, humidity"`
	Role    model.Component `json:"role" enum:"sensor,send"`
	BuiltIn bool            `json:"built_in" doc:"it is the release's"`
	Driver  bool            `json:"driver,omitempty" doc:"a program of the release's: it has no text"`
	Digest  string          `json:"digest,omitempty" doc:"of its text" example:"5d41402abc4b2a76"`
	By      string          `json:"by,omitempty" doc:"who stored it"`
	Changed *time.Time      `json:"changed,omitempty"`
	On      int             `json:"on,omitempty" doc:"nodes that have it"`
	Missing int             `json:"missing,omitempty" doc:"nodes that do not have it yet: they are off, or cannot take it"`
}

// SensorTemplateText is one with its text.
type SensorTemplateText struct {
	SensorTemplate
	Text string `json:"text" doc:"TOML" example:"name = \"aht20\"\naddresses = [0x38]\n"`
}

// SensorTemplateList is a page of templates.
type SensorTemplateList struct {
	Items []SensorTemplate `json:"items"`
	Next  string           `json:"next,omitempty"`
}

// PutSensorTemplate is the body of PUT /v1/sensor-templates/{name}.
type PutSensorTemplate struct {
	Text string `json:"text" minLength:"1" maxLength:"32768" doc:"TOML" example:"name = \"aht20\"\naddresses = [0x38]\n"`
}

// LintSensorTemplate is the body of POST /v1/sensor-templates/lint.
type LintSensorTemplate struct {
	Name string `json:"name" minLength:"1" maxLength:"32" doc:"that of its file, without .toml" example:"aht20"`
	Text string `json:"text" minLength:"1" maxLength:"65536" doc:"TOML" example:"name = \"aht20\"\naddresses = [0x38]\n"`
}

// SensorTemplateFindings is what a look at a template has found.
type SensorTemplateFindings struct {
	Usable bool                    `json:"usable"`
	Items  []model.TemplateFinding `json:"items"`
}
