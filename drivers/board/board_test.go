package board

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"halo.internal/boards"
	"halo.internal/model"
)

func builtIn(t testing.TB) map[string]File {
	t.Helper()
	list, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]File{}
	for _, f := range list {
		m[f.Name] = f
	}
	return m
}

func TestBuiltInBoards(t *testing.T) {
	all := builtIn(t)
	if got := strings.Join(slices.Sorted(maps.Keys(all)), " "); got != "generic-40pin qemu-virt rpi3b rpi3b-plus rpi4b zero2w" {
		t.Errorf("boards: got %s", got)
	}
	for name, f := range all {
		if f.Image != "" && len(all[f.Image].Consoles) == 0 {
			t.Errorf("%s starts from the image of %s, of which there is none", name, f.Image)
		}
		if name == "qemu-virt" {
			continue
		}
		if f.Header == nil || len(f.Header.Pins) != 40 {
			t.Errorf("%s: expected a header of 40 pins", name)
			continue
		}
		// What has been the same on all Pis since the first with 40 pins.
		for pin, want := range map[int]string{1: "3V3", 2: "5V", 3: "GPIO2", 5: "GPIO3", 6: "GND", 8: "GPIO14", 10: "GPIO15", 11: "GPIO17", 39: "GND", 40: "GPIO21"} {
			if got := f.Header.Pins[pin-1]; got.Pin != pin || got.Name != want {
				t.Errorf("%s: pin %d is %s, want %s", name, pin, got.Name, want)
			}
		}
	}
	pi := all["rpi4b"]
	if got := pi.Line("GPIO17"); got != "pinctrl-bcm2711/17" {
		t.Errorf("GPIO17 is the line %s", got)
	}
	if got := pi.Header.Pins[2].Use; got != "I2C1 SDA" {
		t.Errorf("pin 3 is used for %q, want I2C1 SDA", got)
	}
	if Digest(pi.Board) == Digest(all["rpi3b"].Board) || len(Digest(pi.Board)) != 16 {
		t.Errorf("digests: %s", Digest(pi.Board))
	}
}

const good = `name = "mast"
title = "Mast"
models = ["ACME Mast"]
overlays = ["dtoverlay=mm_wlan"]

[header]
name = "J1"
columns = 2
pins = [
  { pin = 1, name = "3V3", kind = "power" },
  { pin = 2, name = "GND", kind = "ground" },
  { pin = 3, name = "P3", kind = "gpio", line = "soc/3", functions = ["I2C1 SDA"] },
  { pin = 4, name = "P4", kind = "gpio", line = "soc/4" },
  { pin = 5, name = "P5", kind = "gpio", line = "soc/5" },
]

[[i2c]]
name = "I2C1"
device = "1000.i2c"
sda = "P3"
scl = "P4"
in_use = [{ address = 0x70, by = "multiplexer" }]

[[output]]
name = "siren"
line = "P5"
safe = "off"
`

func TestRefusals(t *testing.T) {
	if _, err := Parse("mast.toml", []byte(good), boards.Files); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"unknown key":         {`title = "Mast"`, `colour = "red"`, `mast.toml:2: unknown key "colour"; expected one of name, title, models, i2c,`},
		"unknown key of bus":  {`sda = "P3"`, `data = "P3"`, `mast.toml:20: i2c[0]: unknown key "data"; expected one of name, device, sda, scl, taken, in_use, khz`},
		"other name":          {`name = "mast"`, `name = "pole"`, `mast.toml:1: name: expected the file's name, "mast", got "pole"`},
		"no model":            {`models = ["ACME Mast"]`, ``, `models: expected at least one`},
		"overlay":             {`dtoverlay=mm_wlan`, `initramfs x`, `mast.toml:4: overlays[0]: expected a line such as dtoverlay=`},
		"kind":                {`name = "GND", kind = "ground"`, `name = "GND", kind = "earth"`, `mast.toml:11: header.pins[1].kind: expected one of gpio, power, ground, reserved, got "earth"`},
		"pin twice":           {`pin = 4`, `pin = 3`, `mast.toml:13: header.pins[3].pin: expected a number of 1 to 256 that no other pin has, got 3`},
		"gpio, no line":       {`, line = "soc/4"`, ``, `mast.toml:13: header.pins[3].line: expected the GPIO line`},
		"no such pin":         {`scl = "P4"`, `scl = "GND"`, `mast.toml:21: i2c[0].scl: expected a pin with a GPIO line, got GND`},
		"used twice":          {`line = "P5"`, `line = "P3"`, `mast.toml:26: output[0].line: expected a line that nothing else uses: P3 is used for I2C1 SDA`},
		"used twice, by line": {`line = "P5"`, `line = "soc/4"`, `soc/4 is used for I2C1 SCL`},
		"half a bus":          {`scl = "P4"`, ``, `i2c[0].sda: expected both sda and scl`},
		"address":             {`0x70`, `0x78`, `mast.toml:22: i2c[0].in_use[0].address: expected 0x03 to 0x77, got 0x78`},
		"safe":                {`safe = "off"`, `safe = "maybe"`, `mast.toml:27: output[0].safe: expected one of off, on, keep, got "maybe"`},
		"no output":           {`line = "P5"`, ``, `output[0].line: expected either a line or pwm`},
		"pulses twice":        {"line = \"P5\"\n", "pwm = { device = \"a.pwm\", channel = 1, hz = 50.0 }\n[[output]]\nname = \"fan\"\npwm = { device = \"a.pwm\", channel = 1, hz = 10.0 }\n", `output[1].pwm.channel: expected a channel of no other output, got 1, which is "siren"`},
		"header of none":      {"[header]\nname = \"J1\"\ncolumns = 2\n", "[header]\nuse = \"raspi\"\n", "expected one of generic-40, raspberry-pi-bcm2711, raspberry-pi-bcm2837"},
		"bad bytes":           {`title = "Mast"`, `title = "a\u0007b"`, `mast.toml:2: title: expected one line`},
		"power":               {"[[output]]", "[power]\nsource = \"sun\"\n[[output]]", `mast.toml:25: power.source: expected one of usb, poe, dc, battery, host, got "sun"`},
		"button":              {"[[output]]", "[[button]]\nname = \"b\"\ndoes = \"selfdestruct\"\nline = \"P5\"\n[[output]]", `button[0].does: expected factory-reset`},
		"radio":               {"[[output]]", "[[radio]]\nname = \"r\"\ndriver = \"morse\"\nbus = \"isa\"\n[[output]]", `expected one of sdio, spi, usb, pci, got "isa"`},
		"input":               {"[[output]]", "[[input]]\nname = \"Door\"\nline = \"P5\"\n[[output]]", `mast.toml:25: input[0].name: expected 1 to 32 small letters`},
		"input, no line":      {"[[output]]", "[[input]]\nname = \"door\"\n[[output]]", `input[0].line: expected the line of the input`},
		"input and output":    {"[[output]]", "[[input]]\nname = \"door\"\nline = \"P5\"\n[[output]]", `input[0].line: expected a line that nothing else uses: P5 is used for output siren`},
		"debounce":            {"[[output]]", "[[input]]\nname = \"door\"\nline = \"soc/9\"\ndebounce_ms = 10001\n[[output]]", `mast.toml:27: input[0].debounce_ms: expected 0 to 10000, got 10001`},
		"event":               {"[[output]]", "[[input]]\nname = \"door\"\nline = \"soc/9\"\nevent = \"panic\"\n[[output]]", `input[0].event: expected one of none, info, warning, error, got "panic"`},
		"bias":                {"[[output]]", "[[input]]\nname = \"door\"\nline = \"soc/9\"\nbias = \"up\"\n[[output]]", `input[0].bias: expected one of pull-up, pull-down, none, got "up"`},
		"halow":               {"[[output]]", "[halow]\nchip = \"mm9\"\nbus = \"sdio\"\nmodule = \"fgh100m\"\n[[output]]", `mast.toml:25: halow.chip: expected one of mm6108, mm8108`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, tc.old, tc.new, 1)
			if text == good {
				t.Fatalf("the board has no %s", tc.old)
			}
			if _, err := Parse("mast.toml", []byte(text), boards.Files); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestHaLowIsARadioWithPins(t *testing.T) {
	text := good[:strings.Index(good, "[[output]]")] + "[halow]\nchip = \"mm6108\"\nbus = \"spi\"\nmodule = \"fgh100m\"\nreset_line = \"P5\"\n"
	f, err := Parse("mast.toml", []byte(text), boards.Files)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Radios) != 1 || f.Radios[0].Driver != "morse" || *f.Radios[0].DelayS != 5 || f.Radios[0].Calibration != "fgh100m" {
		t.Errorf("radios: got %+v", f.Radios)
	}
	if got := f.Header.Pins[4].Use; got != "reset of the radio halow" {
		t.Errorf("pin 5 is used for %q", got)
	}
	if got := Lines(f.Board)["soc/5"]; got != "reset of the radio halow" {
		t.Errorf("line soc/5 is used for %q", got)
	}
}

// device is the root of a machine with such a device tree and such files of people's.
func device(t *testing.T, model string, compatible []string, files map[string]string) Options {
	t.Helper()
	root := t.TempDir()
	o := Options{Root: root, User: filepath.Join(root, "boards")}
	tree := filepath.Join(root, "proc/device-tree")
	for _, d := range []string{tree, o.User} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if model != "" {
		write(tree, "model", model+"\x00")
	}
	write(tree, "compatible", strings.Join(compatible, "\x00")+"\x00")
	for name, text := range files {
		write(o.User, name, text)
	}
	return o
}

func TestFindsTheBoardByItsDeviceTree(t *testing.T) {
	mast := strings.Replace(good, "ACME Mast", "Raspberry Pi 4 Model B", 1)
	for name, tc := range map[string]struct {
		model      string
		compatible []string
		files      map[string]string
		image      string
		want       string
		source     model.BoardSource
		problem    string
	}{
		"Pi 3B":                  {"Raspberry Pi 3 Model B Rev 1.2", []string{"raspberrypi,3-model-b", "brcm,bcm2837"}, nil, "rpi3b", "rpi3b", model.BoardBuiltIn, ""},
		"Pi 3B+, firmware":       {"Raspberry Pi 3 Model B Plus Rev 1.3", []string{"raspberrypi,3-model-b-plus", "brcm,bcm2837"}, nil, "rpi3b", "rpi3b-plus", model.BoardBuiltIn, ""},
		"Pi 3B+, mainline":       {"Raspberry Pi 3 Model B+", []string{"raspberrypi,3-model-b-plus", "brcm,bcm2837"}, nil, "rpi3b", "rpi3b-plus", model.BoardBuiltIn, ""},
		"Pi 4B":                  {"Raspberry Pi 4 Model B Rev 1.5", []string{"raspberrypi,4-model-b", "brcm,bcm2711"}, nil, "", "rpi4b", model.BoardBuiltIn, ""},
		"Zero 2 W":               {"Raspberry Pi Zero 2 W Rev 1.0", []string{"raspberrypi,model-zero-2-w", "brcm,bcm2837"}, nil, "", "zero2w", model.BoardBuiltIn, ""},
		"virtual machine":        {"linux,dummy-virt", []string{"linux,dummy-virt"}, nil, "", "qemu-virt", model.BoardBuiltIn, ""},
		"unknown":                {"Orange Pi Zero 3", []string{"xunlong,orangepi-zero3"}, nil, "", "generic-40pin", model.BoardGuess, ""},
		"no device tree":         {"", nil, nil, "", "generic-40pin", model.BoardGuess, ""},
		"people's goes before":   {"Raspberry Pi 4 Model B Rev 1.5", nil, map[string]string{"mast.toml": mast}, "rpi4b", "mast", model.BoardFile, ""},
		"people's for another":   {"Raspberry Pi 4 Model B Rev 1.5", nil, map[string]string{"mast.toml": good}, "", "rpi4b", model.BoardBuiltIn, ""},
		"people's is wrong":      {"Raspberry Pi 4 Model B Rev 1.5", nil, map[string]string{"mast.toml": strings.Replace(mast, "P3\"", "Q/x\"", 1), "readme.txt": "x"}, "", "rpi4b", model.BoardBuiltIn, "mast.toml:"},
		"people's has its name":  {"Raspberry Pi 4 Model B Rev 1.5", nil, map[string]string{"rpi4b.toml": strings.Replace(mast, `"mast"`, `"rpi4b"`, 1)}, "", "rpi4b", model.BoardFile, ""},
		"the image's, of equals": {"ACME Mast", nil, map[string]string{"mast.toml": good, "mast-2.toml": strings.Replace(good, `"mast"`, `"mast-2"`, 1)}, "mast-2", "mast-2", model.BoardFile, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := device(t, tc.model, tc.compatible, tc.files)
			o.Image = tc.image
			k, err := Find(o)
			if err != nil {
				t.Fatal(err)
			}
			if k.Ref.Name != tc.want || k.Ref.Source != tc.source || k.Board.Name != tc.want || !strings.Contains(k.Ref.Problem, tc.problem) || tc.problem == "" && k.Ref.Problem != "" {
				t.Errorf("got %+v, want %s from %s, problem %q", k.Ref, tc.want, tc.source, tc.problem)
			}
		})
	}
}

// A fault of each kind at each place: whatever comes, it is refused with a line, or it
// is a board that passes the rules that nodes' descriptions do.
func TestTenThousandBadBoards(t *testing.T) {
	t.Parallel()
	pi, err := boards.Files.ReadFile("rpi4b.toml")
	if err != nil {
		t.Fatal(err)
	}
	seeds := []string{good, string(pi)}
	words := []string{"\"", "[", "]", "{", "}", "=", "\n", "0x7fffffffffffffff", "-1", "1e308", "nan", "inf", "''", "true", "[[i2c]]\n", "[halow]\n", "name", "\x00", "\xff", "pin = 0", "line = \"\"", "[[a.b.c]]", "= =", "\"\"\"", "#", "9999999999999999999999", "1979-05-27T07:32:00Z"}
	refused := 0
	for i := range 10000 {
		s := seeds[i%2]
		at, word := (i*7919)%len(s), words[(i/2)%len(words)]
		cut := min(len(s), at+(i*31)%9)
		b := []byte(s[:at] + word + s[cut:])
		f, err := Parse("mast.toml", b, boards.Files)
		if err != nil {
			refused++
			if !strings.HasPrefix(err.Error(), "mast.toml") {
				t.Fatalf("board %d: expected an error with its file, got %v", i, err)
			}
			continue
		}
		if err := Complete(&f.Board); err != nil {
			t.Fatalf("board %d is accepted as a file, and not from a node: %v", i, err)
		}
	}
	if refused < 5000 {
		t.Errorf("of 10000 bad boards %d were refused", refused)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	for _, name := range []string{"rpi4b.toml", "qemu-virt.toml", "generic-40pin.toml"} {
		b, err := boards.Files.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("mast.toml", b, boards.Files)
		if err != nil {
			return
		}
		if err := Complete(&file.Board); err != nil {
			t.Errorf("accepted as a file, and not from a node: %v", err)
		}
		if Digest(file.Board) == "" {
			t.Error("no digest")
		}
	})
}

// What a node sends is as hostile as a file.
func FuzzComplete(f *testing.F) {
	for _, b := range builtIn(f) {
		text, err := json.Marshal(b.Board)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var b model.Board
		if json.Unmarshal(text, &b) != nil || Complete(&b) != nil {
			return
		}
		if again := Complete(&b); again != nil || len(fmt.Sprint(b)) > 1<<20 {
			t.Errorf("accepted once, and then: %v", again)
		}
	})
}
