package model

// Board is the hardware of a device: what is on the board, where on its header what is,
// and what HALO may use of it. A file of boards/ says so, or one of people's on the
// device.
type Board struct {
	Name    string        `json:"name" toml:"name" cbor:"1,keyasint" example:"rpi4b"`
	Title   string        `json:"title,omitempty" toml:"title" cbor:"2,keyasint,omitempty" example:"Raspberry Pi 4 Model B"`
	Models  []string      `json:"models,omitempty" toml:"models" cbor:"3,keyasint,omitempty" doc:"model of the device tree, or a compatible string of its root"`
	Header  *BoardHeader  `json:"header,omitempty" toml:"-" cbor:"4,keyasint,omitempty"`
	I2C     []BoardI2C    `json:"i2c,omitempty" toml:"i2c" cbor:"5,keyasint,omitempty"`
	Serial  []BoardSerial `json:"serial,omitempty" toml:"serial" cbor:"6,keyasint,omitempty"`
	Radios  []BoardRadio  `json:"radios,omitempty" toml:"radio" cbor:"7,keyasint,omitempty"`
	LEDs    []BoardLED    `json:"leds,omitempty" toml:"led" cbor:"8,keyasint,omitempty"`
	Buttons []BoardButton `json:"buttons,omitempty" toml:"button" cbor:"9,keyasint,omitempty"`
	Power   *BoardPower   `json:"power,omitempty" toml:"power" cbor:"10,keyasint,omitempty"`
	Outputs []BoardOutput `json:"outputs,omitempty" toml:"output" cbor:"11,keyasint,omitempty"`
	Overlay []string      `json:"overlays,omitempty" toml:"overlays" cbor:"12,keyasint,omitempty" doc:"lines of config.txt by which the firmware merges device tree overlays" example:"dtoverlay=mm_wlan"`
	Inputs  []BoardInput  `json:"inputs,omitempty" toml:"input" cbor:"13,keyasint,omitempty"`
}

// BoardHeader is the header of pins.
type BoardHeader struct {
	Name    string     `json:"name,omitempty" toml:"name" cbor:"1,keyasint,omitempty" doc:"as printed beside it" example:"J8"`
	Columns int        `json:"columns" toml:"columns" cbor:"2,keyasint" minimum:"1" maximum:"4" doc:"pins are counted along a row, then the next row" example:"2"`
	Pins    []BoardPin `json:"pins" toml:"pins" cbor:"3,keyasint"`
}

// BoardPin is one pin of a header.
type BoardPin struct {
	Pin       int      `json:"pin" toml:"pin" cbor:"1,keyasint" doc:"physical number, from 1" example:"11"`
	Name      string   `json:"name" toml:"name" cbor:"2,keyasint" example:"GPIO17"`
	Kind      PinKind  `json:"kind" toml:"kind" cbor:"3,keyasint" enum:"gpio,power,ground,reserved" example:"gpio"`
	Line      string   `json:"line,omitempty" toml:"line" cbor:"4,keyasint,omitempty" doc:"GPIO line: name, or chip and number, by the chip's label" example:"pinctrl-bcm2711/17"`
	Functions []string `json:"functions,omitempty" toml:"functions" cbor:"5,keyasint,omitempty" doc:"what else the pin can be" example:"SPI1 CE1"`
	Use       string   `json:"use,omitempty" toml:"-" cbor:"6,keyasint,omitempty" doc:"what this board uses it for" example:"reset of the radio halow"`
}

// PinKind is what a pin is.
type PinKind string

// Kinds of pins.
const (
	PinGPIO     PinKind = "gpio"
	PinPower    PinKind = "power"
	PinGround   PinKind = "ground"
	PinReserved PinKind = "reserved" // for the board's own use
)

// PinKinds returns all kinds.
func PinKinds() []PinKind { return []PinKind{PinGPIO, PinPower, PinGround, PinReserved} }

// BoardI2C is an I2C bus.
type BoardI2C struct {
	Name   string       `json:"name" toml:"name" cbor:"1,keyasint" example:"I2C1"`
	Device string       `json:"device" toml:"device" cbor:"2,keyasint" doc:"the adapter's device, as the kernel names it" example:"fe804000.i2c"`
	SDA    string       `json:"sda,omitempty" toml:"sda" cbor:"3,keyasint,omitempty" doc:"pin of the header, or GPIO line" example:"GPIO2"`
	SCL    string       `json:"scl,omitempty" toml:"scl" cbor:"4,keyasint,omitempty" doc:"by which a stuck bus is clocked free" example:"GPIO3"`
	Taken  string       `json:"taken,omitempty" toml:"taken" cbor:"5,keyasint,omitempty" doc:"what it is for, where HALO leaves it alone" example:"HDMI"`
	InUse  []BoardInUse `json:"in_use,omitempty" toml:"in_use" cbor:"6,keyasint,omitempty" doc:"addresses that nothing is sent to when chips are looked for"`
	SpeedK int          `json:"khz,omitempty" toml:"khz" cbor:"7,keyasint,omitempty" doc:"clock, where the device tree does not say it" example:"100"`
}

// BoardInUse is an address of a bus that belongs to somebody.
type BoardInUse struct {
	Address uint16 `json:"address" toml:"address" cbor:"1,keyasint" example:"112"`
	By      string `json:"by" toml:"by" cbor:"2,keyasint" example:"multiplexer TCA9548A"`
}

// BoardSerial is a serial port.
type BoardSerial struct {
	Name   string `json:"name" toml:"name" cbor:"1,keyasint" example:"UART1"`
	Device string `json:"device" toml:"device" cbor:"2,keyasint" doc:"below /dev" example:"ttyS1"`
	TX     string `json:"tx,omitempty" toml:"tx" cbor:"3,keyasint,omitempty" doc:"pin of the header" example:"GPIO14"`
	RX     string `json:"rx,omitempty" toml:"rx" cbor:"4,keyasint,omitempty" doc:"pin of the header" example:"GPIO15"`
	Taken  string `json:"taken,omitempty" toml:"taken" cbor:"5,keyasint,omitempty" doc:"what it is for, where HALO leaves it alone" example:"console"`
}

// BoardRadio is a radio.
type BoardRadio struct {
	Name        string   `json:"name" toml:"name" cbor:"1,keyasint" example:"halow"`
	Driver      string   `json:"driver" toml:"driver" cbor:"2,keyasint" doc:"kernel module" example:"morse"`
	Bus         string   `json:"bus" toml:"bus" cbor:"3,keyasint" enum:"sdio,spi,usb,pci" example:"sdio"`
	Reset       string   `json:"reset_line,omitempty" toml:"reset_line" cbor:"4,keyasint,omitempty" doc:"pin of the header, or GPIO line" example:"GPIO17"`
	Wake        string   `json:"wake_line,omitempty" toml:"wake_line" cbor:"5,keyasint,omitempty" example:"GPIO23"`
	Busy        string   `json:"busy_line,omitempty" toml:"busy_line" cbor:"6,keyasint,omitempty" example:"GPIO24"`
	IRQ         string   `json:"irq_line,omitempty" toml:"irq_line" cbor:"7,keyasint,omitempty" example:"GPIO5"`
	DelayS      *float64 `json:"delay_s,omitempty" toml:"delay_s" cbor:"8,keyasint,omitempty" doc:"from the device on its bus to its driver" example:"5"`
	Calibration string   `json:"calibration,omitempty" toml:"calibration" cbor:"9,keyasint,omitempty" doc:"board calibration file (BCF), or the module to which it belongs" example:"fgh100m"`
}

// BoardLED is a lamp.
type BoardLED struct {
	Name   string `json:"name" toml:"name" cbor:"1,keyasint" doc:"as the kernel names it" example:"ACT"`
	Colour string `json:"colour,omitempty" toml:"colour" cbor:"2,keyasint,omitempty" example:"green"`
	Status bool   `json:"status,omitempty" toml:"status" cbor:"3,keyasint,omitempty" doc:"it shows by blinks how the device is"`
}

// BoardButton is a button, or two pins for a jumper.
type BoardButton struct {
	Name  string  `json:"name" toml:"name" cbor:"1,keyasint" example:"reset"`
	Does  string  `json:"does" toml:"does" cbor:"2,keyasint" enum:"factory-reset" example:"factory-reset"`
	Line  string  `json:"line" toml:"line" cbor:"3,keyasint" doc:"pin of the header, or GPIO line" example:"GPIO21"`
	High  bool    `json:"active_high,omitempty" toml:"active_high" cbor:"4,keyasint,omitempty" doc:"pressed is high; else low"`
	Bias  string  `json:"bias,omitempty" toml:"bias" cbor:"5,keyasint,omitempty" enum:"pull-up,pull-down,none" doc:"resistor in the chip; where nothing is said, that to the level of a button that is not pressed"`
	HoldS float64 `json:"hold_s,omitempty" toml:"hold_s" cbor:"6,keyasint,omitempty" doc:"seconds that it is held; 10 where nothing is said" example:"10"`
}

// BoardPower is what feeds the board.
type BoardPower struct {
	Source string  `json:"source" toml:"source" cbor:"1,keyasint" enum:"usb,poe,dc,battery,host" example:"usb"`
	Volts  float64 `json:"volts,omitempty" toml:"volts" cbor:"2,keyasint,omitempty" example:"5.1"`
	Watts  float64 `json:"watts,omitempty" toml:"watts" cbor:"3,keyasint,omitempty" doc:"that the supply should have" example:"15"`
	Sensor string  `json:"undervoltage,omitempty" toml:"undervoltage" cbor:"4,keyasint,omitempty" doc:"name of the kernel's hardware monitor that tells of under-voltage" example:"rpi_volt"`
}

// BoardOutput is something that the board drives: a relay, a siren, a fan.
type BoardOutput struct {
	Name      string     `json:"name" toml:"name" cbor:"1,keyasint" example:"siren"`
	Title     string     `json:"title,omitempty" toml:"title" cbor:"2,keyasint,omitempty" example:"siren on the mast"`
	Line      string     `json:"line,omitempty" toml:"line" cbor:"3,keyasint,omitempty" doc:"pin of the header, or GPIO line" example:"GPIO27"`
	PWM       *OutputPWM `json:"pwm,omitempty" toml:"pwm" cbor:"4,keyasint,omitempty"`
	ActiveLow bool       `json:"active_low,omitempty" toml:"active_low" cbor:"5,keyasint,omitempty" doc:"on is low"`
	Safe      OutputSafe `json:"safe,omitempty" toml:"safe" cbor:"6,keyasint,omitempty" enum:"off,on,keep" doc:"at the start, and when the gateway is lost; off where nothing is said"`
	LostS     int        `json:"lost_s,omitempty" toml:"lost_s" cbor:"7,keyasint,omitempty" doc:"seconds without the gateway after which it is safe; 300 where nothing is said" example:"300"`
}

// OutputPWM is a pulse-width output of the kernel's.
type OutputPWM struct {
	Device  string  `json:"device" toml:"device" cbor:"1,keyasint" doc:"the chip's device, as the kernel names it" example:"fe20c800.pwm"`
	Channel int     `json:"channel" toml:"channel" cbor:"2,keyasint" example:"0"`
	Hz      float64 `json:"hz" toml:"hz" cbor:"3,keyasint" doc:"pulses a second" example:"1000"`
}

// OutputSafe is what an output is while nobody controls it.
type OutputSafe string

// What an output may be then.
const (
	SafeOff  OutputSafe = "off"
	SafeOn   OutputSafe = "on"
	SafeKeep OutputSafe = "keep"
)

// BoardInput is a line that the board reads: a door's contact, a float switch, the pulses of
// a meter.
type BoardInput struct {
	Name       string   `json:"name" toml:"name" cbor:"1,keyasint" doc:"its metrics are gpio.NAME.on and gpio.NAME.changes" example:"door"`
	Title      string   `json:"title,omitempty" toml:"title" cbor:"2,keyasint,omitempty" example:"Door of the cabinet"`
	Line       string   `json:"line" toml:"line" cbor:"3,keyasint" doc:"pin of the header, or GPIO line" example:"GPIO22"`
	ActiveLow  bool     `json:"active_low,omitempty" toml:"active_low" cbor:"4,keyasint,omitempty" doc:"on is low"`
	Bias       string   `json:"bias,omitempty" toml:"bias" cbor:"5,keyasint,omitempty" enum:"pull-up,pull-down,none" doc:"resistor in the chip; as it is where nothing is said"`
	DebounceMS *int     `json:"debounce_ms,omitempty" toml:"debounce_ms" cbor:"6,keyasint,omitempty" minimum:"0" maximum:"10000" doc:"levels that last less are not seen; 20 where nothing is said" example:"20"`
	Event      Severity `json:"event,omitempty" toml:"event" cbor:"7,keyasint,omitempty" enum:"none,info,warning,error" doc:"severity of the event that each change is; info where nothing is said" example:"warning"`
}

// EventNone is of an input whose changes are no events.
const EventNone Severity = "none"

// BoardRef is what a heartbeat says of the board: which file describes it. The gateway
// asks for what it does not have.
type BoardRef struct {
	Name    string      `json:"name" cbor:"1,keyasint" example:"rpi4b"`
	Digest  string      `json:"digest" cbor:"2,keyasint" doc:"of the description" example:"5d41402abc4b2a76"`
	Source  BoardSource `json:"source" cbor:"3,keyasint" enum:"built-in,file,guess" doc:"built-in: a file of the release; file: one on the device; guess: no file names the device tree's model" example:"built-in"`
	Problem string      `json:"problem,omitempty" cbor:"4,keyasint,omitempty" doc:"what is wrong in a file on the device" example:"mast.toml:7: i2c[0].sda: expected a pin of the header"`
}

// BoardDescription is a board that the gateway knows.
type BoardDescription struct {
	Digest  string `json:"digest" example:"5d41402abc4b2a76"`
	BuiltIn bool   `json:"built_in" doc:"it is one of the gateway's release; others are files on nodes"`
	Board
}

// BoardSource is where a board's description comes from.
type BoardSource string

// Sources.
const (
	BoardBuiltIn BoardSource = "built-in"
	BoardFile    BoardSource = "file"
	BoardGuess   BoardSource = "guess"
)

// NodeBoard is the board of a node, as the gateway knows it.
type NodeBoard struct {
	Node  string   `json:"node" doc:"canonical ID"`
	Model string   `json:"model" doc:"of the device tree" example:"Raspberry Pi 4 Model B Rev 1.4"`
	Ref   BoardRef `json:"ref"`
	Board Board    `json:"board"`
}

// Line is the GPIO line that is meant by the name of a pin of the header, or by the name
// of a line itself.
func (b *Board) Line(ref string) string {
	if b.Header != nil {
		for _, p := range b.Header.Pins {
			if p.Name == ref && p.Line != "" {
				return p.Line
			}
		}
	}
	return ref
}
