package lab_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/control"
)

func (s shell) devices() control.Devices {
	s.t.Helper()
	out, _ := s.do(0, "bus", "--json")
	var d control.Devices
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func TestDevices(t *testing.T) {
	s := newShell(t, "well")
	s.up("--nodes", "1")
	d := s.devices()
	if len(d.Machines) != 2 || d.Machines[1].Machine != "node1" || len(d.Machines[1].Chips) < 5 || len(d.Machines[1].Lines) != 4 || d.Machines[1].GPS == nil {
		t.Fatalf("devices: %+v", d)
	}
	console, _ := s.do(0, "console", "node1")
	for end := time.Now().Add(time.Minute); !strings.Contains(console, "-name node1"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("node1's console: got %q", console)
		}
		console, _ = s.do(0, "console", "node1")
	}
	s.mentions(console, "memory-backend-memfd,share=on,id=ram", "-device vhost-user-i2c-pci,chardev=part0", "-device vhost-user-gpio-pci,chardev=part1", "-device usb-serial,chardev=part2,bus=usb.0")

	s.do(0, "bus", "set", "node1", "bme280", "temperature=31.5", "humidity=80")
	s.do(0, "bus", "unplug", "node1", "lm75")
	s.do(0, "bus", "fault", "node1", "ina219", "nak", "slow=50ms")
	s.do(0, "bus", "stick", "node1", "on")
	s.do(0, "bus", "lose", "node1", "3")
	out, _ := s.do(0, "bus")
	s.mentions(out, "temperature=31.5 °C, humidity=80 %", "unplugged", "nak, slow=50ms", "is stuck", "gateway")
	s.do(0, "bus", "plug", "node1", "lm75")
	s.do(0, "bus", "fault", "node1", "ina219", "none")
	s.do(0, "bus", "stick", "node1", "off")
	if out, _ = s.do(0, "bus"); strings.Contains(out, "unplugged") || strings.Contains(out, "nak") || strings.Contains(out, "is stuck") {
		t.Errorf("mended:\n%s", out)
	}

	out, _ = s.do(0, "bus", "screen", "node1")
	s.mentions(out, "ssd1306@0/0x3c", "\u2800\u2800") // dark: nobody has set it up

	s.do(0, "gpio", "set", "node1", "DOOR", "high")
	s.do(0, "gpio", "press", "node1", "BUTTON", "--hold", "1ms")
	for _, l := range s.devices().Machines[1].Lines {
		want := map[string]int{"DOOR": 1, "BUTTON": 2}[l.Line]
		if l.Changes != want || l.High != (l.Line == "DOOR") {
			t.Errorf("line %+v", l)
		}
	}
	out, _ = s.do(0, "gpio")
	s.mentions(out, "RELAY", "unused")

	s.do(0, "gps", "set", "node1", "lat=-33.86", "lon=151.2", "speed=0", "fix=2d", "rate=5", "noise=on")
	out, _ = s.do(0, "gps")
	s.mentions(out, "-33.860000", "151.200000", "2d", "noise")

	for _, tc := range []struct{ command, want string }{
		{"bus set node9 bme280 temperature=1", `got "node9"`},
		{"bus set node1 bme281 temperature=1", "expected one of bme280@0/0x76"},
		{"bus set node1 bme280 temperature", "such as temperature=31.5"},
		{"bus set node1 bme280 temperature=hot", "such as temperature=31.5"},
		{"bus set node1 bme280 temperature=1000", "expected -40 to 85 °C, got 1000"},
		{"bus fault node1 bme280 broken", "expected nak, identity, slow=TIME or none"},
		{"bus fault node1 bme280 slow=fast", "slow=50ms"},
		{"bus fault node1 lm75 identity", "no register of identity"},
		{"bus stick node1 maybe", "expected on or off"},
		{"bus stick node1 on --bus 7", "expected an I2C bus from 0 to 0"},
		{"bus lose node1 some", "expected a number of transactions"},
		{"bus screen node9", "node9 has no display"},
		{"gpio set node1 HORN high", "expected one of BUTTON"},
		{"gpio set node1 DOOR ajar", "expected high or low"},
		{"gps set node1 lat=north", "lat: expected a number"},
		{"gps set node1 lat=99", "lat: expected -90 to 90, got 99"},
		{"gps set node1 tilt=1", "expected one of ahead, alt"},
		{"gps set node1 rate=often", "rate: expected fixes a second"},
		{"gps set node1 fix=4d", "expected none, 2d or 3d"},
	} {
		_, text := s.do(1, strings.Fields(tc.command)...)
		s.mentions(text, tc.want)
	}
}

func TestWithoutDevices(t *testing.T) {
	s := newShell(t, "well")
	_, text := s.do(1, append([]string{"up", "--devices", "toaster"}, s.images...)...)
	s.mentions(text, "--devices: no such device")
	s.up("--nodes", "0", "--devices", "none")
	if d := s.devices(); len(d.Machines) != 0 {
		t.Errorf("devices: %+v", d)
	}
	_, text = s.do(1, "gpio", "press", "gateway", "BUTTON")
	s.mentions(text, "gateway has no devices")
}
