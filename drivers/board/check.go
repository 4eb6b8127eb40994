package board

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"halo.internal/drivers/halow"
	"halo.internal/model"
	"halo.internal/model/strict"
)

// Bounds of a description.
const (
	maxPins    = 256
	maxList    = 16 // buses, ports, lamps, lines of overlays and so on, each
	maxOutputs = 32
	maxInputs  = 32
	maxText    = 120
	maxWord    = 32

	firstAddr, lastAddr = 0x03, 0x77 // of I2C
)

// Defaults of what a file may leave out.
const (
	HoldS     = 10  // that a button is held
	OutputLoS = 300 // without the gateway until an output is safe
)

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	pinForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,15}$`)
	lineForm    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,47}(/[0-9]{1,4})?$`)
	deviceForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,47}(/[0-9]{1,3}){0,4}$`)
	ttyForm     = regexp.MustCompile(`^tty[A-Z]{1,8}[0-9]{1,3}$`)
	moduleForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	outputForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/ -]{0,63}$`)
	overlayForm = regexp.MustCompile(`^dt(overlay|param)=[!-~]{1,84}$`) // the firmware cuts lines at 98
)

type checker struct {
	file     string
	at       *strict.Positions // nil: of no file
	problems []*strict.Problem
	used     map[string]string // lines, and what for
}

func (c *checker) bad(key, format string, args ...any) {
	p := &strict.Problem{File: c.file, Key: key, Text: fmt.Sprintf(format, args...)}
	if c.at != nil {
		p.Line = c.at.Line(key)
	}
	c.problems = append(c.problems, p)
}

// Complete checks a description that comes from elsewhere, and fills in what follows from
// the rest: for what each pin is used.
func Complete(b *model.Board) error {
	c := checker{file: "board " + clip(b.Name, maxWord)}
	c.board(b)
	return strict.Errors(c.problems)
}

// whole checks a file whose name is that of the board.
func (c *checker) whole(f *File, name string) {
	if f.Name != name {
		c.bad("name", "expected the file's name, %q, got %.40q", clip(name, 64), f.Name)
	}
	if len(f.Models) == 0 && !f.Fallback {
		c.bad("models", "expected at least one model or compatible string of the device tree, got none")
	}
	if f.Image != "" && !nameForm.MatchString(f.Image) {
		c.bad("image", "expected the name of a board with an image, got %.40q", f.Image)
	}
	if f.HaLow != nil {
		c.halow(f)
	}
	c.board(&f.Board)
}

// halow checks the settings of a HaLow radio, and makes it one of the radios.
func (c *checker) halow(f *File) {
	s := f.HaLow
	err := s.Check()
	list, ok := err.(interface{ Unwrap() []error })
	if err != nil && !ok {
		c.bad("halow", "%v", err)
	}
	if ok {
		for _, e := range list.Unwrap() {
			if p, ok := errors.AsType[*halow.Problem](e); ok {
				c.bad("halow."+p.Key, "expected %s, got %q", p.Expected, p.Got)
			} else {
				c.bad("halow", "%v", e)
			}
		}
		return
	}
	delay := float64(halow.DefaultDelayS)
	if s.DelayS != nil {
		delay = float64(*s.DelayS)
	}
	calibration := s.Module
	if calibration == "" {
		calibration = s.Calibration
	}
	f.Radios = append(f.Radios, model.BoardRadio{
		Name: "halow", Driver: halow.Module, Bus: s.Bus, Reset: s.ResetLine, Wake: s.WakeLine, Busy: s.BusyLine, IRQ: s.IRQLine, DelayS: &delay, Calibration: calibration,
	})
}

// board checks the hardware, and notes for what pins are used.
func (c *checker) board(b *model.Board) {
	c.used = map[string]string{}
	if !nameForm.MatchString(b.Name) {
		c.bad("name", "expected 1 to 32 small letters, digits and -, got %.40q", b.Name)
	}
	c.text("title", b.Title, maxText, false)
	c.few("models", len(b.Models), maxList)
	for i, m := range b.Models {
		c.text(fmt.Sprintf("models[%d]", i), m, 128, true)
	}
	c.few("overlays", len(b.Overlay), maxList)
	for i, o := range b.Overlay {
		if !overlayForm.MatchString(o) {
			c.bad(fmt.Sprintf("overlays[%d]", i), "expected a line such as dtoverlay=mm_wlan or dtparam=spi=on, of at most 96 characters, got %.40q", o)
		}
	}
	c.pins(b.Header)
	c.buses(b)
	c.ports(b)
	c.radios(b)
	c.lamps(b)
	c.buttons(b)
	c.power(b.Power)
	c.outputs(b)
	c.inputs(b)
	if len(c.problems) == 0 {
		c.fill(b)
	}
}

// fill notes at each pin what it is used for.
func (c *checker) fill(b *model.Board) {
	if b.Header == nil {
		return
	}
	h := *b.Header // others may be reading the one that was
	h.Pins = slices.Clone(h.Pins)
	b.Header = &h
	for i := range h.Pins {
		p := &h.Pins[i]
		p.Use = ""
		if p.Line != "" {
			p.Use = c.used[p.Line]
		}
	}
}

func (c *checker) pins(h *model.BoardHeader) {
	if h == nil {
		return
	}
	if h.Columns < 1 || h.Columns > 4 {
		c.bad("header.columns", "expected 1 to 4, got %d", h.Columns)
	}
	c.text("header.name", h.Name, maxWord, false)
	if len(h.Pins) == 0 || len(h.Pins) > maxPins {
		c.bad("header.pins", "expected 1 to %d pins, got %d", maxPins, len(h.Pins))
		return
	}
	numbers, names, lines := map[int]bool{}, map[string]bool{}, map[string]bool{}
	for i, p := range h.Pins {
		key := fmt.Sprintf("header.pins[%d]", i)
		if p.Pin < 1 || p.Pin > maxPins || numbers[p.Pin] {
			c.bad(key+".pin", "expected a number of 1 to %d that no other pin has, got %d", maxPins, p.Pin)
		}
		numbers[p.Pin] = true
		if !pinForm.MatchString(p.Name) {
			c.bad(key+".name", "expected 1 to 16 letters, digits and _.+-, got %.40q", p.Name)
		}
		if !slices.Contains(model.PinKinds(), p.Kind) {
			c.bad(key+".kind", "expected one of %s, got %.40q", words(model.PinKinds()), p.Kind)
		}
		switch {
		case p.Kind == model.PinGPIO && p.Line == "":
			c.bad(key+".line", "expected the GPIO line of the pin, such as pinctrl-bcm2711/17")
		case p.Line != "" && p.Kind != model.PinGPIO && p.Kind != model.PinReserved:
			c.bad(key+".line", "expected none of a pin of %s, got %.48q", p.Kind, p.Line)
		case p.Line != "" && !lineForm.MatchString(p.Line):
			c.bad(key+".line", "expected a line's name, or chip and number as in gpiochip0/17, got %.48q", p.Line)
		case p.Line != "" && (names[p.Name] || lines[p.Line]):
			c.bad(key+".name", "expected name and line of no other pin, got %.16q and %.48q", p.Name, p.Line)
		}
		if p.Line != "" {
			names[p.Name], lines[p.Line] = true, true
		}
		c.few(key+".functions", len(p.Functions), maxList)
		for j, f := range p.Functions {
			c.text(fmt.Sprintf("%s.functions[%d]", key, j), f, maxWord, true)
		}
	}
}

// line checks a GPIO line, and that nobody else has it. kind says what for; empty is no
// line.
func (c *checker) line(b *model.Board, key, ref, use string) {
	if ref == "" {
		return
	}
	if !lineForm.MatchString(ref) {
		c.bad(key, "expected a pin of the header such as GPIO17, a line's name, or chip and number as in gpiochip0/17, got %.48q", ref)
		return
	}
	if b.Header != nil {
		for _, p := range b.Header.Pins {
			if p.Name == ref && p.Line == "" {
				c.bad(key, "expected a pin with a GPIO line, got %s", p.Name)
				return
			}
		}
	}
	line := b.Line(ref)
	if other := c.used[line]; other != "" {
		c.bad(key, "expected a line that nothing else uses: %.48s is used for %s", ref, other)
		return
	}
	c.used[line] = use
}

func (c *checker) buses(b *model.Board) {
	c.few("i2c", len(b.I2C), maxList)
	devices := map[string]bool{}
	for i, v := range b.I2C {
		key := fmt.Sprintf("i2c[%d]", i)
		c.text(key+".name", v.Name, maxWord, true)
		c.text(key+".taken", v.Taken, maxText, false)
		if !deviceForm.MatchString(v.Device) || devices[v.Device] {
			c.bad(key+".device", "expected the adapter's device as the kernel names it, such as fe804000.i2c, with the channel behind it where a multiplexer is, which no other bus has; got %.48q", v.Device)
		}
		devices[v.Device] = true
		if (v.SDA == "") != (v.SCL == "") {
			c.bad(key+".sda", "expected both sda and scl, or neither")
		}
		if v.SpeedK < 0 || v.SpeedK > 5000 {
			c.bad(key+".khz", "expected 1 to 5000, got %d", v.SpeedK)
		}
		c.line(b, key+".sda", v.SDA, v.Name+" SDA")
		c.line(b, key+".scl", v.SCL, v.Name+" SCL")
		c.few(key+".in_use", len(v.InUse), lastAddr)
		for j, u := range v.InUse {
			if u.Address < firstAddr || u.Address > lastAddr {
				c.bad(fmt.Sprintf("%s.in_use[%d].address", key, j), "expected 0x%02x to 0x%02x, got 0x%02x", firstAddr, lastAddr, u.Address)
			}
			c.text(fmt.Sprintf("%s.in_use[%d].by", key, j), u.By, maxWord, true)
		}
	}
}

func (c *checker) ports(b *model.Board) {
	c.few("serial", len(b.Serial), maxList)
	for i, v := range b.Serial {
		key := fmt.Sprintf("serial[%d]", i)
		c.text(key+".name", v.Name, maxWord, true)
		c.text(key+".taken", v.Taken, maxText, false)
		if !ttyForm.MatchString(v.Device) {
			c.bad(key+".device", "expected a port below /dev such as ttyS1 or ttyAMA0, got %.40q", v.Device)
		}
		c.line(b, key+".tx", v.TX, v.Name+" TX")
		c.line(b, key+".rx", v.RX, v.Name+" RX")
	}
}

var radioBuses = []string{"sdio", "spi", "usb", "pci"}

func (c *checker) radios(b *model.Board) {
	c.few("radio", len(b.Radios), maxList)
	for i, v := range b.Radios {
		key := fmt.Sprintf("radio[%d]", i)
		if v.Driver == halow.Module {
			key = "halow" // where its file says it
		}
		c.text(key+".name", v.Name, maxWord, true)
		if !moduleForm.MatchString(v.Driver) {
			c.bad(key+".driver", "expected the name of a kernel module, got %.40q", v.Driver)
		}
		if !slices.Contains(radioBuses, v.Bus) {
			c.bad(key+".bus", "expected one of %s, got %.40q", words(radioBuses), v.Bus)
		}
		if v.DelayS != nil && !(*v.DelayS >= 0 && *v.DelayS <= 120) {
			c.bad(key+".delay_s", "expected 0 to 120, got %v", *v.DelayS)
		}
		c.text(key+".calibration", v.Calibration, 64, false)
		for _, l := range []struct{ name, ref string }{{"reset", v.Reset}, {"wake", v.Wake}, {"busy", v.Busy}, {"irq", v.IRQ}} {
			c.line(b, key+"."+l.name+"_line", l.ref, l.name+" of the radio "+v.Name)
		}
	}
}

func (c *checker) lamps(b *model.Board) {
	c.few("led", len(b.LEDs), maxList)
	for i, v := range b.LEDs {
		c.text(fmt.Sprintf("led[%d].name", i), v.Name, 64, true)
		if strings.ContainsAny(v.Name, "/\\") {
			c.bad(fmt.Sprintf("led[%d].name", i), "expected a name of /sys/class/leds, got %.64q", v.Name)
		}
		c.text(fmt.Sprintf("led[%d].colour", i), v.Colour, maxWord, false)
	}
}

// FactoryReset is what a button does.
const FactoryReset = "factory-reset"

var biases = []string{"", "pull-up", "pull-down", "none"}

func (c *checker) buttons(b *model.Board) {
	c.few("button", len(b.Buttons), maxList)
	for i, v := range b.Buttons {
		key := fmt.Sprintf("button[%d]", i)
		c.text(key+".name", v.Name, maxWord, true)
		if v.Does != FactoryReset {
			c.bad(key+".does", "expected %s, got %.40q", FactoryReset, v.Does)
		}
		if v.Line == "" {
			c.bad(key+".line", "expected the line of the button")
		}
		if !slices.Contains(biases, v.Bias) {
			c.bad(key+".bias", "expected one of %s, got %.40q", words(biases[1:]), v.Bias)
		}
		if v.HoldS != 0 && !(v.HoldS >= 3 && v.HoldS <= 60) {
			c.bad(key+".hold_s", "expected 3 to 60, got %v", v.HoldS)
		}
		c.line(b, key+".line", v.Line, "button "+v.Name)
	}
}

var sources = []string{"usb", "poe", "dc", "battery", "host"}

func (c *checker) power(p *model.BoardPower) {
	if p == nil {
		return
	}
	if !slices.Contains(sources, p.Source) {
		c.bad("power.source", "expected one of %s, got %.40q", words(sources), p.Source)
	}
	if !(p.Volts >= 0 && p.Volts <= 60) {
		c.bad("power.volts", "expected 0 to 60, got %v", p.Volts)
	}
	if !(p.Watts >= 0 && p.Watts <= 1000) {
		c.bad("power.watts", "expected 0 to 1000, got %v", p.Watts)
	}
	if p.Sensor != "" && !moduleForm.MatchString(p.Sensor) {
		c.bad("power.undervoltage", "expected the name of a hardware monitor such as rpi_volt, got %.40q", p.Sensor)
	}
}

var safe = []model.OutputSafe{"", model.SafeOff, model.SafeOn, model.SafeKeep}

func (c *checker) outputs(b *model.Board) {
	c.few("output", len(b.Outputs), maxOutputs)
	names, channels := map[string]bool{}, map[string]string{}
	for i, v := range b.Outputs {
		key := fmt.Sprintf("output[%d]", i)
		if !outputForm.MatchString(v.Name) || names[v.Name] {
			c.bad(key+".name", "expected 1 to 64 letters, digits, blanks and ._/-, as no other output has, got %.64q", v.Name)
		}
		names[v.Name] = true
		c.text(key+".title", v.Title, maxText, false)
		if (v.Line == "") == (v.PWM == nil) {
			c.bad(key+".line", "expected either a line or pwm")
		}
		if p := v.PWM; p != nil {
			if !deviceForm.MatchString(p.Device) {
				c.bad(key+".pwm.device", "expected the chip's device as the kernel names it, such as fe20c800.pwm, got %.48q", p.Device)
			}
			if p.Channel < 0 || p.Channel > 15 {
				c.bad(key+".pwm.channel", "expected 0 to 15, got %d", p.Channel)
			}
			if !(p.Hz >= 0.1 && p.Hz <= 1e6) {
				c.bad(key+".pwm.hz", "expected 0.1 to 1000000, got %v", p.Hz)
			}
			at := fmt.Sprintf("%s/%d", p.Device, p.Channel)
			if other := channels[at]; other != "" {
				c.bad(key+".pwm.channel", "expected a channel of no other output, got %d, which is %.64q", p.Channel, other)
			}
			channels[at] = v.Name
		}
		if !slices.Contains(safe, v.Safe) {
			c.bad(key+".safe", "expected one of %s, got %.40q", words(safe[1:]), v.Safe)
		}
		if v.LostS != 0 && (v.LostS < 10 || v.LostS > 86400) {
			c.bad(key+".lost_s", "expected 10 to 86400, got %d", v.LostS)
		}
		c.line(b, key+".line", v.Line, "output "+v.Name)
	}
}

var severities = []model.Severity{"", model.EventNone, model.Info, model.Warning, model.Error}

// maxDebounceMS bounds for how long a level may have to last.
const maxDebounceMS = 10_000

func (c *checker) inputs(b *model.Board) {
	c.few("input", len(b.Inputs), maxInputs)
	names := map[string]bool{}
	for i, v := range b.Inputs {
		key := fmt.Sprintf("input[%d]", i)
		if !nameForm.MatchString(v.Name) || names[v.Name] {
			c.bad(key+".name", "expected 1 to 32 small letters, digits and -, as no other input has, got %.40q", v.Name)
		}
		names[v.Name] = true
		c.text(key+".title", v.Title, maxText, false)
		if v.Line == "" {
			c.bad(key+".line", "expected the line of the input")
		}
		if !slices.Contains(biases, v.Bias) {
			c.bad(key+".bias", "expected one of %s, got %.40q", words(biases[1:]), v.Bias)
		}
		if d := v.DebounceMS; d != nil && (*d < 0 || *d > maxDebounceMS) {
			c.bad(key+".debounce_ms", "expected 0 to %d, got %d", maxDebounceMS, *d)
		}
		if !slices.Contains(severities, v.Event) {
			c.bad(key+".event", "expected one of %s, got %.40q", words(severities[1:]), v.Event)
		}
		c.line(b, key+".line", v.Line, "input "+v.Name)
	}
}

func (c *checker) few(key string, n, most int) {
	if n > most {
		c.bad(key, "expected at most %d, got %d", most, n)
	}
}

// text checks what is for people: one line that can be shown anywhere.
func (c *checker) text(key, s string, most int, needed bool) {
	switch {
	case s == "" && needed:
		c.bad(key, "expected a text of at most %d octets, got none", most)
	case len(s) > most || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		c.bad(key, "expected one line of at most %d octets that can be shown, got %.40q", most, s)
	}
}

func words[T ~string](list []T) string {
	all := make([]string, len(list))
	for i, w := range list {
		all[i] = string(w)
	}
	return strings.Join(all, ", ")
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// Lines are the GPIO lines that a checked description uses, and what for.
func Lines(b model.Board) map[string]string {
	c := checker{}
	c.board(&b)
	return maps.Clone(c.used)
}
