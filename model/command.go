package model

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// CommandKind is one of the things that a node can be asked to do. There are no
// others: a node refuses what is not on the list, and none of them takes a line for
// a shell, a path or a program.
type CommandKind string

// Kinds of commands. A name is never used again for another meaning.
const (
	CommandReboot     CommandKind = "reboot"
	CommandRestart    CommandKind = "restart"
	CommandLocate     CommandKind = "locate"
	CommandSetOutput  CommandKind = "set-output"
	CommandScan       CommandKind = "scan"
	CommandCapture    CommandKind = "capture"
	CommandConfig     CommandKind = "config"
	CommandSensor     CommandKind = "sensor"
	CommandDisplay    CommandKind = "display"
	CommandReset      CommandKind = "factory-reset"
	CommandSpeedTest  CommandKind = "speed-test"  // measure the way to another device; part of a speed test
	CommandSpeedServe CommandKind = "speed-serve" // be the other device; part of a speed test
)

// CommandKinds returns all kinds, those that people give first.
func CommandKinds() []CommandKind {
	return append(PeopleCommands(), CommandSpeedTest, CommandSpeedServe)
}

// PeopleCommands returns the kinds that people give to one node.
func PeopleCommands() []CommandKind {
	return []CommandKind{CommandReboot, CommandRestart, CommandLocate, CommandSetOutput, CommandScan, CommandCapture, CommandConfig, CommandSensor, CommandDisplay, CommandReset}
}

// Command is what a node is asked to do: a kind, and of the arguments those of that
// kind. Where the kind needs none they may be left out.
type Command struct {
	Kind    CommandKind     `json:"kind" cbor:"1,keyasint" enum:"reboot,restart,locate,set-output,scan,capture,config,sensor,display,factory-reset" example:"locate"`
	Restart *RestartCommand `json:"restart,omitempty" cbor:"2,keyasint,omitempty"`
	Locate  *LocateCommand  `json:"locate,omitempty" cbor:"3,keyasint,omitempty"`
	Output  *OutputCommand  `json:"set_output,omitempty" cbor:"4,keyasint,omitempty"`
	Scan    *ScanRequest    `json:"scan,omitempty" cbor:"5,keyasint,omitempty"`
	Capture *CaptureRequest `json:"capture,omitempty" cbor:"6,keyasint,omitempty" doc:"at most 1 MiB, as it comes through the mesh; 256 KiB where nothing is said"`
	Config  *AgentConfig    `json:"config,omitempty" cbor:"7,keyasint,omitempty"`

	Sensor  *SensorCommand  `json:"sensor,omitempty" cbor:"11,keyasint,omitempty" doc:"chips on its buses"`
	Display *DisplayCommand `json:"display,omitempty" cbor:"12,keyasint,omitempty"`

	SpeedTest  *SpeedTestCommand  `json:"-" cbor:"8,keyasint,omitempty"`
	SpeedServe *SpeedServeCommand `json:"-" cbor:"9,keyasint,omitempty"`

	Reset *ResetCommand `json:"factory_reset,omitempty" cbor:"10,keyasint,omitempty"`
}

// ResetCommand has a node forget its identity, its network and all that it has stored.
type ResetCommand struct {
	Confirm string `json:"confirm" cbor:"1,keyasint" maxLength:"64" example:"n-b3x5k2m7q4w6c8d2f5ga" doc:"canonical ID of the node: it cannot be called back"`
}

// RestartCommand names one of HALO's processes.
type RestartCommand struct {
	Component string `json:"component" cbor:"1,keyasint" enum:"halo-mesh,halo-agent,halo-field,gateway-api,haloctl" example:"halo-mesh"`
}

// LocateCommand has a node show where it is: its LEDs blink.
type LocateCommand struct {
	Seconds int `json:"seconds,omitempty" cbor:"1,keyasint,omitempty" minimum:"1" maximum:"600" default:"30" example:"30"`
}

// OutputCommand switches an output of a node.
type OutputCommand struct {
	Output string `json:"output" cbor:"1,keyasint" minLength:"1" maxLength:"64" example:"siren"`
	On     bool   `json:"on" cbor:"2,keyasint"`
	// Percent is of an output that pulses.
	Percent *float64 `json:"percent,omitempty" cbor:"3,keyasint,omitempty" minimum:"0" maximum:"100" example:"40" doc:"of the time that it is on, where it pulses; all of it when left out"`
}

// DisplayCommand has a display of a node show something, for a while in place of how the node
// is.
type DisplayCommand struct {
	Display string   `json:"display,omitempty" cbor:"1,keyasint,omitempty" maxLength:"32" doc:"label of its chip; empty: the only one" example:"ssd1306"`
	Lines   []string `json:"lines,omitempty" cbor:"2,keyasint,omitempty" maxItems:"8" doc:"from the top, 21 characters of each; none: how the node is, again" example:"Maintenance"`
	Seconds int      `json:"seconds,omitempty" cbor:"3,keyasint,omitempty" minimum:"1" maximum:"86400" default:"300" example:"300"`
}

// AgentConfig is how often a node measures and sends, and what it keeps. What is
// zero stays as it is; with nothing in it the settings in use are only told.
type AgentConfig struct {
	SampleS        float64 `json:"sample_s,omitempty" cbor:"1,keyasint,omitempty" minimum:"0.1" maximum:"3600" example:"10" doc:"seconds between two samples"`
	SendS          float64 `json:"send_s,omitempty" cbor:"2,keyasint,omitempty" minimum:"0.1" maximum:"3600" example:"60" doc:"seconds between two batches"`
	SpoolDelayS    float64 `json:"spool_delay_s,omitempty" cbor:"3,keyasint,omitempty" minimum:"1" maximum:"3600" example:"120" doc:"seconds until an unacknowledged reading is on disk"`
	SpoolBudgetMiB int64   `json:"spool_budget_mib,omitempty" cbor:"4,keyasint,omitempty" minimum:"1" maximum:"1048576" example:"64" doc:"MiB of disk for what is not acknowledged"`

	Position *ConfigPosition `json:"position,omitempty" cbor:"5,keyasint,omitempty" doc:"where the node is while no GPS receiver of it knows"`
	Power    *PowerSettings  `json:"power,omitempty" cbor:"6,keyasint,omitempty" doc:"how the board's power is judged; an empty one brings back the defaults"`
	Metrics  *MetricRules    `json:"metrics,omitempty" cbor:"7,keyasint,omitempty" doc:"what is sent of a metric, and its limits"`
}

// ConfigPosition is where a device was put.
type ConfigPosition struct {
	None bool     `json:"none,omitempty" cbor:"1,keyasint,omitempty" doc:"forget it; the rest is ignored"`
	Lat  float64  `json:"lat,omitempty" cbor:"2,keyasint,omitempty" minimum:"-90" maximum:"90" example:"48.1173" doc:"degrees north, WGS 84"`
	Lon  float64  `json:"lon,omitempty" cbor:"3,keyasint,omitempty" minimum:"-180" maximum:"180" example:"11.516667" doc:"degrees east"`
	AltM *float64 `json:"alt_m,omitempty" cbor:"4,keyasint,omitempty" example:"520.5" doc:"above mean sea level"`
}

// SpeedTicket proves to a device that serves a speed test that whoever comes is the
// other one.
type SpeedTicket [16]byte

// SpeedTestCommand has a node measure the way to a device that serves.
type SpeedTestCommand struct {
	Peer      netip.Addr  `cbor:"1,keyasint"` // its overlay address
	Ticket    SpeedTicket `cbor:"2,keyasint"`
	DownBytes uint32      `cbor:"3,keyasint"` // to the node
	UpBytes   uint32      `cbor:"4,keyasint"` // from the node
	LimitMS   uint32      `cbor:"5,keyasint"` // of each direction
}

// SpeedServeCommand has a device wait for the node that measures.
type SpeedServeCommand struct {
	Peer      netip.Addr  `cbor:"1,keyasint"` // the node's overlay address
	Ticket    SpeedTicket `cbor:"2,keyasint"`
	DownBytes uint32      `cbor:"3,keyasint"` // what it will ask for, as in SpeedTestCommand
	UpBytes   uint32      `cbor:"4,keyasint"`
	LimitMS   uint32      `cbor:"5,keyasint"`
	WaitMS    uint32      `cbor:"6,keyasint"` // for it to be done
}

// Bounds of commands.
const (
	LocateSeconds       = 30
	DisplaySeconds      = 300
	DisplayMaxSeconds   = 86400
	DisplayLines        = 8 // of a display
	LocateMaxSeconds    = 600
	CommandCaptureBytes = 256 << 10 // of a capture that comes through the mesh
	CommandFileMax      = 1 << 20   // of what a command makes, at most
	CommandResultMax    = 48 << 10  // octets of JSON
	SpeedDownBytes      = 2_000_000
	SpeedUpBytes        = 1_000_000
	SpeedLimit          = 15 * time.Second // of each direction: a slow link is measured with less
	SpeedMaxWait        = 2 * time.Minute
)

// Restartable are the components that a restart may name.
func Restartable() []string {
	return []string{"halo-mesh", "halo-agent", "halo-field", "gateway-api", "haloctl"}
}

// CommandState is how far a command is.
type CommandState string

// States of a command on a node.
const (
	CommandRunning   CommandState = "running"
	CommandDone      CommandState = "done"
	CommandFailed    CommandState = "failed"    // it was tried
	CommandRefused   CommandState = "refused"   // nothing was done
	CommandCancelled CommandState = "cancelled" // somebody took it back

	// CommandGone is what a gateway answers that does not want to hear of a command any
	// more.
	CommandGone CommandState = "gone"
)

// Final tells whether nothing comes after that state.
func (s CommandState) Final() bool { return s != CommandRunning }

// Codes that say why a node refuses a command, or why it failed. Programs act on
// them.
const (
	CodeUnsupported = "unsupported"  // a release without it, or an engine that is not there
	CodeNoLED       = "no-led"       // nothing to blink with
	CodeNoOutput    = "no-output"    // no such output
	CodeNoDisplay   = "no-display"   // no such display
	CodeNoRadio     = "no-radio"     // no such radio
	CodeNoComponent = "no-component" // that process does not run there
	CodeNoOverlay   = "no-overlay"   // the device has no overlay address yet
	CodeInvalid     = "invalid"      // the arguments make no sense there
	CodeBusy        = "busy"         // it is at one of that kind already, or at too many
	CodeExpired     = "expired"      // it came too late
	CodeEpoch       = "epoch"        // signed by a gateway whose epoch is lower than one that was heard
	CodeReplayed    = "replayed"     // so old that what became of it is not remembered
	CodeUnkept      = "unkept"       // nothing can be remembered over a restart, so that it might be done twice
	CodeAirtime     = "airtime"      // the law leaves the radio too little time to send
	CodeTimeout     = "timeout"      // it took too long
	CodeInterrupted = "interrupted"  // the process ended meanwhile
	CodeUnanswered  = "unanswered"   // the node was told, and has not said what became of it
	CodeUnreachable = "unreachable"  // the other device cannot be reached
	CodeFailed      = "failed"       // the text says what went wrong
)

// CommandRefusal is the typed no of a node: nothing was done.
type CommandRefusal struct{ Code, Text string }

// Error returns code and text.
func (r *CommandRefusal) Error() string { return r.Code + ": " + r.Text }

// RefuseCommand makes a refusal.
func RefuseCommand(code, format string, args ...any) error {
	return &CommandRefusal{code, fmt.Sprintf(format, args...)}
}

// Ability is whether a node can do one kind of command, and why not.
type Ability struct {
	Kind CommandKind `json:"kind" cbor:"1,keyasint" example:"locate"`
	Code string      `json:"code,omitempty" cbor:"2,keyasint,omitempty" example:"no-led" doc:"why not; absent: it can"`
	Text string      `json:"text,omitempty" cbor:"3,keyasint,omitempty" example:"the board has no LED that HALO may use"`
}

// SpeedResult is what a speed test has measured, each direction at the receiver.
type SpeedResult struct {
	Down      SpeedWay `json:"down" doc:"to the node"`
	Up        SpeedWay `json:"up" doc:"from the node"`
	LatencyMS float64  `json:"latency_ms" example:"12.5" doc:"least time to the other device and back, before anything else was sent"`
}

// SpeedWay is one direction of a speed test.
type SpeedWay struct {
	Mbps    float64 `json:"mbps" example:"3.2"`
	Bytes   int64   `json:"bytes" example:"2000000" doc:"that arrived"`
	Seconds float64 `json:"seconds" example:"5"`
	Cut     bool    `json:"cut,omitempty" doc:"the time was over before all was sent"`
}

// Way makes a direction of what arrived in which time.
func Way(octets int64, took time.Duration, cut bool) SpeedWay {
	w := SpeedWay{Bytes: octets, Seconds: took.Seconds(), Cut: cut}
	if took > 0 {
		w.Mbps = float64(octets) * 8 / took.Seconds() / 1e6
	}
	return w
}

var outputForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/ -]{0,63}$`)

// Check tells what is wrong with the command: its kind, arguments of another kind,
// missing ones, and values beyond bounds. It fills in what may be left out.
func (c *Command) Check() error {
	for _, a := range []struct {
		kind  CommandKind
		there bool
	}{
		{CommandRestart, c.Restart != nil}, {CommandLocate, c.Locate != nil}, {CommandSetOutput, c.Output != nil}, {CommandScan, c.Scan != nil},
		{CommandCapture, c.Capture != nil}, {CommandConfig, c.Config != nil}, {CommandSensor, c.Sensor != nil}, {CommandDisplay, c.Display != nil}, {CommandSpeedTest, c.SpeedTest != nil}, {CommandSpeedServe, c.SpeedServe != nil}, {CommandReset, c.Reset != nil},
	} {
		if a.there && a.kind != c.Kind {
			return fmt.Errorf("command %.32q: expected no arguments of %s", c.Kind, a.kind)
		}
	}
	switch c.Kind {
	case CommandReboot:
		return nil
	case CommandRestart:
		return c.checkRestart()
	case CommandLocate:
		return c.checkLocate()
	case CommandSetOutput:
		if c.Output == nil || !outputForm.MatchString(c.Output.Output) {
			return errors.New("set-output: expected the output's name, 1 to 64 letters, digits, blanks and ._/-")
		}
		if p := c.Output.Percent; p != nil && !(*p >= 0 && *p <= 100 && c.Output.On) { // not a number is neither
			return fmt.Errorf("set-output: percent: expected 0 to 100 of an output that is on, got %v", *p)
		}
		return nil
	case CommandReset:
		if c.Reset == nil || c.Reset.Confirm == "" {
			return errors.New("factory-reset: confirm: expected the node's canonical ID")
		}
		return nil
	case CommandScan:
		if c.Scan == nil {
			c.Scan = &ScanRequest{}
		}
		return checkRadio(c.Scan.Radio)
	case CommandCapture:
		return c.checkCapture()
	case CommandConfig:
		return c.checkConfig()
	case CommandSensor:
		return c.checkSensor()
	case CommandDisplay:
		return c.checkDisplay()
	case CommandSpeedTest:
		return c.checkSpeedTest()
	case CommandSpeedServe:
		return c.checkSpeedServe()
	}
	return fmt.Errorf("command: expected one of %v, got %.32q", CommandKinds(), c.Kind)
}

func (c *Command) checkRestart() error {
	if c.Restart == nil {
		return fmt.Errorf("restart: expected a component, one of %v", Restartable())
	}
	for _, name := range Restartable() {
		if c.Restart.Component == name {
			return nil
		}
	}
	return fmt.Errorf("restart: component: expected one of %v, got %.32q", Restartable(), c.Restart.Component)
}

func (c *Command) checkLocate() error {
	if c.Locate == nil {
		c.Locate = &LocateCommand{}
	}
	c.Locate.Seconds = cmp.Or(c.Locate.Seconds, LocateSeconds)
	return bounded("locate: seconds", c.Locate.Seconds, 1, LocateMaxSeconds)
}

// maxDisplayLine bounds a line, in octets: displays show less.
const maxDisplayLine = 128

func (c *Command) checkDisplay() error {
	if c.Display == nil {
		c.Display = &DisplayCommand{}
	}
	d := c.Display
	d.Seconds = cmp.Or(d.Seconds, DisplaySeconds)
	if d.Display != "" && !TemplateForm.MatchString(d.Display) {
		return fmt.Errorf("display: expected the label of a chip, 1 to 32 small letters, digits, - and _, got %.40q", d.Display)
	}
	if len(d.Lines) > DisplayLines {
		return fmt.Errorf("display: expected at most %d lines, got %d", DisplayLines, len(d.Lines))
	}
	for i, l := range d.Lines {
		if len(l) > maxDisplayLine || !utf8.ValidString(l) || strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("display: line %d: expected a line of at most %d octets that can be shown, got %.40q", i+1, maxDisplayLine, l)
		}
	}
	return bounded("display: seconds", d.Seconds, 1, DisplayMaxSeconds)
}

func checkRadio(name string) error {
	if len(name) > 32 {
		return fmt.Errorf("radio: expected a name of at most 32 octets, got %d", len(name))
	}
	return nil
}

func (c *Command) checkCapture() error {
	if c.Capture == nil {
		c.Capture = &CaptureRequest{}
	}
	q := c.Capture
	q.Seconds, q.Bytes = cmp.Or(q.Seconds, CaptureSeconds), cmp.Or(q.Bytes, CommandCaptureBytes)
	return errors.Join(checkRadio(q.Radio), bounded("capture: seconds", q.Seconds, 1, CaptureMaxSeconds), bounded("capture: bytes", q.Bytes, 1024, CommandFileMax))
}

func (c *Command) checkConfig() error {
	if c.Config == nil {
		c.Config = &AgentConfig{}
	}
	var errs []error
	for _, f := range []struct {
		name string
		v    float64
		low  float64
		most float64
	}{
		{"sample_s", c.Config.SampleS, 0.1, 3600}, {"send_s", c.Config.SendS, 0.1, 3600}, {"spool_delay_s", c.Config.SpoolDelayS, 1, 3600},
		{"spool_budget_mib", float64(c.Config.SpoolBudgetMiB), 1, 1 << 20},
	} {
		if f.v != 0 && !(f.v >= f.low && f.v <= f.most) { // not a number is neither
			errs = append(errs, fmt.Errorf("config: %s: expected %v to %v, got %v", f.name, f.low, f.most, f.v))
		}
	}
	if p := c.Config.Position; p != nil && !p.None && !(Position{Source: PositionStatic, Lat: p.Lat, Lon: p.Lon, AltM: p.AltM}).Valid() {
		errs = append(errs, fmt.Errorf("config: position: expected a latitude of -90 to 90, a longitude of -180 to 180 and a height of this Earth, got %v, %v", p.Lat, p.Lon))
	}
	if m := c.Config.Metrics; m != nil && len(m.Rules) > MaxSentRules {
		errs = append(errs, fmt.Errorf("config: metrics: expected at most %d rules, got %d", MaxSentRules, len(m.Rules)))
	}
	return errors.Join(errs...)
}

func (c *Command) checkSpeedTest() error {
	t := c.SpeedTest
	if t == nil || !t.Peer.IsValid() {
		return errors.New("speed-test: expected the address of the other device")
	}
	return checkSpeed("speed-test", t.DownBytes, t.UpBytes, t.LimitMS)
}

func checkSpeed(kind string, down, up, limit uint32) error {
	return errors.Join(bounded(kind+": down", int(down), 0, SpeedDownBytes), bounded(kind+": up", int(up), 0, SpeedUpBytes),
		bounded(kind+": limit", int(limit), 100, int(SpeedLimit/time.Millisecond)))
}

func (c *Command) checkSpeedServe() error {
	t := c.SpeedServe
	if t == nil || !t.Peer.IsValid() {
		return errors.New("speed-serve: expected the address of the node that measures")
	}
	return errors.Join(checkSpeed("speed-serve", t.DownBytes, t.UpBytes, t.LimitMS), bounded("speed-serve: wait", int(t.WaitMS), 100, int(SpeedMaxWait/time.Millisecond)))
}

func bounded(what string, v, low, most int) error {
	if v < low || v > most {
		return fmt.Errorf("%s: expected %d to %d, got %d", what, low, most, v)
	}
	return nil
}
