package model

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// SensorState is how a chip on a bus is.
type SensorState string

// States of a sensor.
const (
	SensorOK      SensorState = "ok"      // it is read, or driven
	SensorOffered SensorState = "offered" // something answers: a person chooses what it is
	SensorGone    SensorState = "gone"    // it was there, and does not answer
	SensorFailed  SensorState = "failed"  // it answers, and not as it should
	SensorIgnored SensorState = "ignored" // a person wants it left alone
)

// SensorStates returns all states.
func SensorStates() []SensorState {
	return []SensorState{SensorOK, SensorOffered, SensorGone, SensorFailed, SensorIgnored}
}

// SensorChip is a chip on a bus of a node, or something that answers there: a child of the
// node's identity. It is what it is by its place: another chip plugged in there has its
// place.
type SensorChip struct {
	Bus        string             `json:"bus" cbor:"1,keyasint" doc:"path of the bus, the same at each start" example:"fe804000.i2c"`
	Address    uint16             `json:"address" cbor:"2,keyasint" example:"118"`
	State      SensorState        `json:"state" cbor:"3,keyasint" enum:"ok,offered,gone,failed,ignored" example:"ok"`
	Problem    string             `json:"problem,omitempty" cbor:"4,keyasint,omitempty" doc:"what is wrong with it" example:"no chip has acknowledged"`
	Chip       string             `json:"chip,omitempty" cbor:"5,keyasint,omitempty" doc:"template or driver that reads it; empty: nobody knows yet" example:"bme280"`
	Title      string             `json:"title,omitempty" cbor:"6,keyasint,omitempty" example:"Bosch BME280: temperature, humidity, pressure"`
	Label      string             `json:"label,omitempty" cbor:"7,keyasint,omitempty" doc:"second word of its metrics" example:"bme280"`
	Role       Component          `json:"role,omitempty" cbor:"8,keyasint,omitempty" enum:"sensor,send" example:"sensor"`
	Assigned   bool               `json:"assigned" cbor:"9,keyasint,omitempty" doc:"a person has said what it is"`
	Candidates []string           `json:"candidates,omitempty" cbor:"10,keyasint,omitempty" doc:"what it may be, likeliest first" example:"ina219"`
	IntervalS  float64            `json:"interval_s,omitempty" cbor:"11,keyasint,omitempty" doc:"seconds between two readings" example:"60"`
	Params     map[string]float64 `json:"params,omitempty" cbor:"12,keyasint,omitempty" doc:"what depends on its wiring, where it is not the template's default"`
	Values     []SensorValue      `json:"values,omitempty" cbor:"13,keyasint,omitempty" doc:"what it measures"`
	Outputs    []SensorOutput     `json:"outputs,omitempty" cbor:"14,keyasint,omitempty" doc:"what it drives"`
	BusName    string             `json:"bus_name,omitempty" cbor:"15,keyasint,omitempty" doc:"of the bus, as the board file has it" example:"I2C1"`
}

// SensorValue is one thing that a sensor measures.
type SensorValue struct {
	Metric string `json:"metric" cbor:"1,keyasint" example:"i2c.bme280.temperature_c"`
	Title  string `json:"title,omitempty" cbor:"2,keyasint,omitempty" example:"Temperature"`
	Unit   string `json:"unit,omitempty" cbor:"3,keyasint,omitempty" example:"°C"`
	Power  string `json:"power,omitempty" cbor:"4,keyasint,omitempty" doc:"what it is of the board's power" example:"battery_voltage_v"`
}

// SensorOutput is one thing that a chip drives.
type SensorOutput struct {
	Name  string  `json:"name" cbor:"1,keyasint" example:"p0"`
	Title string  `json:"title,omitempty" cbor:"2,keyasint,omitempty" example:"Relay 1"`
	Unit  string  `json:"unit,omitempty" cbor:"3,keyasint,omitempty"`
	Min   float64 `json:"min" cbor:"4,keyasint" example:"0"`
	Max   float64 `json:"max" cbor:"5,keyasint" example:"1"`
	Safe  float64 `json:"safe" cbor:"6,keyasint,omitempty" doc:"at the start, and when whoever controls it is lost"`
}

// SensorBus is a bus of a node.
type SensorBus struct {
	Path    string `json:"path" cbor:"1,keyasint" example:"fe804000.i2c"`
	Name    string `json:"name,omitempty" cbor:"2,keyasint,omitempty" doc:"as the board file has it" example:"I2C1"`
	Problem string `json:"problem,omitempty" cbor:"3,keyasint,omitempty" example:"the bus is stuck: somebody holds a line down, or its driver hangs"`
}

// NodeTemplate is a template of people's on a node.
type NodeTemplate struct {
	Name    string `json:"name" cbor:"1,keyasint" doc:"of its file, without .toml" example:"aht20"`
	Digest  string `json:"digest" cbor:"2,keyasint" doc:"of its text" example:"5d41402abc4b2a76"`
	Problem string `json:"problem,omitempty" cbor:"3,keyasint,omitempty" doc:"what is wrong in it, with its line: it is left out" example:"aht20.toml:7: measure[0].write[1]: expected 0 to 255, got 300"`
}

// Inventory is what is on the buses of a node.
type Inventory struct {
	Buses     []SensorBus    `json:"buses" cbor:"1,keyasint,omitempty"`
	Sensors   []SensorChip   `json:"sensors" cbor:"2,keyasint,omitempty"`
	Templates []NodeTemplate `json:"templates" cbor:"3,keyasint,omitempty" doc:"of people's; those of the release are not in it"`
}

// Bounds of an inventory.
const (
	MaxSensors    = 96 // of a node
	MaxBuses      = 64
	MaxTemplates  = 64 // of people's
	MaxSensorText = 240
	MaxValues     = 32 // of a sensor
)

// SensorKey names a sensor within its node by its place. It can stand in a path of the
// API: what is behind a multiplexer has a ~ before its channel.
func SensorKey(bus string, addr uint16) string {
	return fmt.Sprintf("%s-%02x", strings.ReplaceAll(bus, "/", "~"), addr)
}

// SplitSensorKey is the inverse of SensorKey.
func SplitSensorKey(key string) (bus string, addr uint16, ok bool) {
	i := strings.LastIndexByte(key, '-')
	if i < 1 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(key[i+1:], 16, 7)
	return strings.ReplaceAll(key[:i], "~", "/"), uint16(n), err == nil
}

// SensorID names a sensor within the network.
func SensorID(key, node string) string { return key + "@" + node }

// SplitSensorID is the inverse of SensorID; the node is what was given, an ID or a name.
func SplitSensorID(id string) (key, node string, ok bool) {
	i := strings.LastIndexByte(id, '@')
	if i < 1 || i == len(id)-1 {
		return "", "", false
	}
	return id[:i], id[i+1:], true
}

// Key names the sensor within its node.
func (s SensorChip) Key() string { return SensorKey(s.Bus, s.Address) }

var (
	busForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9@:,._/-]{0,95}$`)
	// TemplateForm is what a template's name looks like.
	TemplateForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
)

// Check tells what is wrong with an inventory that came from a node.
func (v Inventory) Check() error {
	if n := len(v.Buses); n > MaxBuses {
		return fmt.Errorf("expected at most %d buses, got %d", MaxBuses, n)
	}
	if n := len(v.Sensors); n > MaxSensors {
		return fmt.Errorf("expected at most %d sensors, got %d", MaxSensors, n)
	}
	if n := len(v.Templates); n > MaxTemplates {
		return fmt.Errorf("expected at most %d templates, got %d", MaxTemplates, n)
	}
	seen := map[string]bool{}
	for i := range v.Sensors {
		if err := v.Sensors[i].check(); err != nil {
			return fmt.Errorf("sensor %d: %w", i, err)
		}
		if k := v.Sensors[i].Key(); seen[k] {
			return fmt.Errorf("sensor %d: expected each place once, got %s twice", i, k)
		} else {
			seen[k] = true
		}
	}
	for i, b := range v.Buses {
		if !busForm.MatchString(b.Path) || len(b.Name) > MaxSensorText || len(b.Problem) > MaxSensorText {
			return fmt.Errorf("bus %d: expected the path of a bus and texts of at most %d octets, got %.40q", i, MaxSensorText, b.Path)
		}
	}
	for i, t := range v.Templates {
		if !TemplateForm.MatchString(t.Name) || len(t.Digest) > 64 || len(t.Problem) > 2*MaxSensorText {
			return fmt.Errorf("template %d: expected a name of small letters, digits, - and _, got %.40q", i, t.Name)
		}
	}
	return nil
}

func (s SensorChip) check() error {
	switch {
	case !busForm.MatchString(s.Bus):
		return fmt.Errorf("expected the path of a bus, got %.40q", s.Bus)
	case s.Address < 0x03 || s.Address > 0x77:
		return fmt.Errorf("expected an address from 0x03 to 0x77, got %#x", s.Address)
	case s.Chip != "" && !TemplateForm.MatchString(s.Chip), s.Label != "" && !TemplateForm.MatchString(s.Label):
		return fmt.Errorf("expected a chip and a label of small letters, digits, - and _, got %.40q and %.40q", s.Chip, s.Label)
	case len(s.Problem) > MaxSensorText, len(s.Title) > MaxSensorText, len(s.BusName) > MaxSensorText, len(s.State) > 16, len(s.Role) > 16:
		return fmt.Errorf("expected texts of at most %d octets", MaxSensorText)
	case len(s.Candidates) > 16, len(s.Params) > 32, len(s.Values) > MaxValues, len(s.Outputs) > MaxValues:
		return errors.New("expected at most 16 candidates and 32 parameters, values and outputs")
	}
	for _, c := range s.Candidates {
		if !TemplateForm.MatchString(c) {
			return fmt.Errorf("candidate: expected the name of a template, got %.40q", c)
		}
	}
	for _, v := range s.Values {
		if len(v.Metric) > 96 || len(v.Title) > MaxSensorText || len(v.Unit) > 16 || len(v.Power) > 32 {
			return fmt.Errorf("value: expected a metric, got %.100q", v.Metric)
		}
	}
	for _, o := range s.Outputs {
		if len(o.Name) > 32 || len(o.Title) > MaxSensorText || len(o.Unit) > 16 {
			return fmt.Errorf("output: expected a name, got %.40q", o.Name)
		}
	}
	return nil
}

// SensorAction is what a sensor command has a node do.
type SensorAction string

// Actions.
const (
	SensorScan           SensorAction = "scan"            // look for chips at once
	SensorAssign         SensorAction = "assign"          // that is what is there
	SensorForget         SensorAction = "forget"          // whatever was said of it
	SensorTry            SensorAction = "try"             // set it up and read it once, telling all
	SensorPutTemplate    SensorAction = "put-template"    // keep a template of people's
	SensorDeleteTemplate SensorAction = "delete-template" // and no more
)

// ChipNone is assigned to what is to be left alone.
const ChipNone = "none"

// SensorCommand is about the chips of a node.
type SensorCommand struct {
	Do        SensorAction       `json:"do" cbor:"1,keyasint" enum:"scan,assign,forget,try,put-template,delete-template" example:"assign"`
	Bus       string             `json:"bus,omitempty" cbor:"2,keyasint,omitempty" maxLength:"96" example:"fe804000.i2c"`
	Address   uint16             `json:"address,omitempty" cbor:"3,keyasint,omitempty" example:"64"`
	Chip      string             `json:"chip,omitempty" cbor:"4,keyasint,omitempty" maxLength:"32" doc:"template or driver; none: it is to be left alone" example:"ina219"`
	Label     string             `json:"label,omitempty" cbor:"5,keyasint,omitempty" maxLength:"32" doc:"second word of its metrics; empty: the chip's name" example:"solar"`
	IntervalS float64            `json:"interval_s,omitempty" cbor:"6,keyasint,omitempty" minimum:"0" maximum:"86400" doc:"seconds between two readings; 0: as the template says"`
	Params    map[string]float64 `json:"params,omitempty" cbor:"7,keyasint,omitempty" doc:"what depends on its wiring"`
	Name      string             `json:"name,omitempty" cbor:"8,keyasint,omitempty" maxLength:"32" doc:"of a template" example:"aht20"`
	Text      []byte             `json:"text,omitempty" cbor:"9,keyasint,omitempty" maxLength:"16384" doc:"of a template, deflated (RFC 1951)"`
}

// Bounds of what a sensor command carries.
const (
	MaxTemplateText    = 32 << 10 // octets, as drivers/i2c takes them
	MaxTemplateSent    = 12 << 10 // deflated: it goes to nodes in one order
	maxSensorInterval  = 24 * time.Hour
	maxSensorParameter = 32
)

func (c *Command) checkSensor() error {
	s := c.Sensor
	if s == nil {
		return errors.New("sensor: expected what is to be done: scan, assign, forget, try, put-template or delete-template")
	}
	switch s.Do {
	case SensorScan:
		return nil
	case SensorAssign, SensorForget, SensorTry:
		if !busForm.MatchString(s.Bus) || s.Address < 0x03 || s.Address > 0x77 {
			return fmt.Errorf("sensor: expected the path of a bus and an address from 0x03 to 0x77, got %.40q and %#x", s.Bus, s.Address)
		}
		if s.Do == SensorForget {
			return nil
		}
		if !TemplateForm.MatchString(s.Chip) {
			return fmt.Errorf("sensor: expected a chip, such as bme280, got %.40q", s.Chip)
		}
		if s.Label != "" && !TemplateForm.MatchString(s.Label) {
			return fmt.Errorf("sensor: expected a label of 1 to 32 small letters, digits, - and _, got %.40q", s.Label)
		}
		if !(s.IntervalS >= 0 && s.IntervalS <= maxSensorInterval.Seconds()) {
			return fmt.Errorf("sensor: expected an interval of 0 to %v s, got %v", maxSensorInterval.Seconds(), s.IntervalS)
		}
		if len(s.Params) > maxSensorParameter {
			return fmt.Errorf("sensor: expected at most %d parameters, got %d", maxSensorParameter, len(s.Params))
		}
		return nil
	case SensorPutTemplate, SensorDeleteTemplate:
		if !TemplateForm.MatchString(s.Name) {
			return fmt.Errorf("sensor: expected the name of a template, 1 to 32 small letters, digits, - and _, got %.40q", s.Name)
		}
		if len(s.Text) > MaxTemplateSent || s.Do == SensorPutTemplate && len(s.Text) == 0 {
			return fmt.Errorf("sensor: expected a template of at most %d octets, deflated, got %d", MaxTemplateSent, len(s.Text))
		}
		return nil
	}
	return fmt.Errorf("sensor: expected scan, assign, forget, try, put-template or delete-template, got %.32q", s.Do)
}

// SensorTrial is what came of trying a template on a chip.
type SensorTrial struct {
	Transactions []SensorTransaction `json:"transactions"`
	Dropped      int                 `json:"dropped,omitempty" doc:"transactions beyond those that are told"`
	Variables    []SensorVariable    `json:"variables"`
	Values       []SensorVariable    `json:"values"`
	TookMS       float64             `json:"took_ms"`
	Error        string              `json:"error,omitempty" doc:"why there are no values"`
}

// SensorTransaction is what happened on a bus.
type SensorTransaction struct {
	Write  string  `json:"write,omitempty" doc:"octets, in hexadecimal" example:"f7"`
	Read   string  `json:"read,omitempty" example:"80 00 00"`
	Error  string  `json:"error,omitempty"`
	TookMS float64 `json:"took_ms"`
}

// SensorVariable is a name of a formula, or a value, and its number.
type SensorVariable struct {
	Name  string   `json:"name" example:"t_fine"`
	Value *float64 `json:"value,omitempty" doc:"absent: there is none"`
	Unit  string   `json:"unit,omitempty"`
	Error string   `json:"error,omitempty" doc:"why there is none"`
}

// TemplateFinding is what a look at a template has found.
type TemplateFinding struct {
	File    string `json:"file" example:"aht20.toml"`
	Line    int    `json:"line,omitempty" doc:"from 1; absent: of the file as a whole" example:"7"`
	Key     string `json:"key,omitempty" example:"measure[0].write[1]"`
	Text    string `json:"text" example:"expected 0 to 255, got 300"`
	Warning bool   `json:"warning" doc:"the template is usable all the same"`
}
