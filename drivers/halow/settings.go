package halow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"halo.internal/drivers/halow/channel"
	"halo.internal/hal/module"
)

// Settings say what HaLow radio a board has, and how it is connected: the table
// [halow] of boards/*.toml. Morse's driver takes wake, busy and interrupt lines, and a
// reset line of its own, from the device tree (power-gpios, spi-irq-gpios, reset-gpios);
// here they are said so that the board's picture shows them and nobody else takes them.
type Settings struct {
	Chip        string            `toml:"chip" json:"chip"`                         // mm6108 or mm8108
	Bus         string            `toml:"bus" json:"bus"`                           // sdio, spi or usb
	Module      string            `toml:"module" json:"module,omitempty"`           // around the chip, one of modules; chooses the calibration file
	Calibration string            `toml:"calibration" json:"calibration,omitempty"` // file (BCF), for a module that is not listed
	DelayS      *int              `toml:"delay_s" json:"delay_s,omitempty"`         // from the device to the driver; 5 when left out
	ResetLine   string            `toml:"reset_line" json:"reset_line,omitempty"`   // as hal/gpio names lines
	WakeLine    string            `toml:"wake_line" json:"wake_line,omitempty"`
	BusyLine    string            `toml:"busy_line" json:"busy_line,omitempty"`
	IRQLine     string            `toml:"irq_line" json:"irq_line,omitempty"`
	ActiveHigh  bool              `toml:"reset_active_high" json:"reset_active_high,omitempty"`
	Host        string            `toml:"host" json:"host,omitempty"`                   // controller that finds the device anew after a reset: bus and name, e.g. platform/3f300000.mmcnr
	Scheme      string            `toml:"scheme" json:"scheme,omitempty"`               // channelization of the driver, where a country has several
	GainDB      float64           `toml:"antenna_gain_dbi" json:"antenna_gain_dbi"`     //
	LossDB      float64           `toml:"cable_loss_db" json:"cable_loss_db"`           //
	MaxPowerDBm float64           `toml:"max_power_dbm" json:"max_power_dbm,omitempty"` // of the module at its connector; 22 when left out
	Params      map[string]string `toml:"params" json:"params,omitempty"`               // more parameters of the driver
}

// DefaultDelayS is how many seconds after its device the driver is loaded.
const DefaultDelayS = 5

const (
	defaultPowerDBm = 22 // the driver's own
)

// chips is what is known of each chip: its firmware, and the patterns of its
// devices by bus.
var chips = map[string]struct {
	firmware string
	devices  map[string]string
}{
	"mm6108": {"mm6108.bin", map[string]string{"sdio": "sdio:c*v325Bd*", "spi": "of:N*T*Cmorse,mm610x-spi*"}},
	"mm8108": {"mm8108b2-rl.bin", map[string]string{"sdio": "sdio:c*v325Bd*", "spi": "of:N*T*Cmorse,mm810x-spi*", "usb": "usb:v325Bp*"}},
}

// modules is which calibration file belongs to which module, by region; an empty
// region stands for all. Sources: Morse's firmware repository (WHENCE.md), Seeed.
var modules = map[string]struct {
	chip  string
	files map[string]string
}{
	"fgh100m":    {"mm6108", map[string]string{"US": "bcf_fgh100mabmd.bin", "EU": "bcf_fgh100maamd.bin", "JP": "bcf_fgh100mjaamd.bin"}},
	"wio-wm6108": {"mm6108", map[string]string{"": "bcf_fgh100mhaamd.bin"}},
	"mf08651":    {"mm6108", map[string]string{"US": "bcf_mf08651_us.bin"}},
	"mf15457":    {"mm8108", map[string]string{"": "bcf_mf15457.bin"}},
	"halowlink2": {"mm8108", map[string]string{"": "bcf_mm_hl2_ext.bin"}},
}

var (
	fileForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	lineForm  = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[0-9]+)?$`)
	hostForm  = regexp.MustCompile(`^[a-z0-9_-]+/[A-Za-z0-9._:-]+$`)
	keyForm   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,55}$`)
	valueForm = regexp.MustCompile(`^[A-Za-z0-9_.:,/-]{1,128}$`)
)

// own are parameters that are computed, and whose other values would get round
// what is checked before.
var own = []string{"country", "bcf", "fw_bin_file", "macaddr_suffix", "macaddr_octet", "enable_ps", "tx_max_power_mbm", "enable_auto_duty_cycle", "enable_auto_mpsw", "channelization_scheme"}

// schemes is what settings may name.
var schemes = fmt.Sprintf("one of %s, %s, %s", channel.IEEE20, channel.IEEE24, channel.REVmf)

// Problem is one setting that is wrong.
type Problem struct {
	Key      string // as in the table, e.g. bus
	Expected string
	Got      string
}

// Error says what was expected.
func (p *Problem) Error() string {
	return fmt.Sprintf("halow.%s: expected %s, got %q", p.Key, p.Expected, p.Got)
}

// ParseSettings reads what the image's build has written into the slot
// (image/layout.HaLow).
func ParseSettings(b []byte) (s Settings, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("halow settings: %w", err)
	}
	return s, s.Check()
}

// Check returns a *Problem for each setting that is wrong, joined.
func (s Settings) Check() error {
	var errs []error
	bad := func(key, expected string, got any) {
		errs = append(errs, &Problem{key, expected, fmt.Sprint(got)})
	}
	chip, ok := chips[s.Chip]
	if !ok {
		bad("chip", "one of "+list(chips), s.Chip)
	} else if _, ok := chip.devices[s.Bus]; !ok {
		bad("bus", "one of "+list(chip.devices)+" for "+s.Chip, s.Bus)
	}
	switch m, known := modules[s.Module]; {
	case s.Module == "" && s.Calibration == "":
		bad("module", "one of "+list(modules)+", or the file in calibration", "")
	case s.Module != "" && s.Calibration != "":
		bad("calibration", "none beside the module "+s.Module+", to which its own belongs", s.Calibration)
	case s.Module != "" && !known:
		bad("module", "one of "+list(modules)+"; for others the file in calibration", s.Module)
	case known && ok && m.chip != s.Chip:
		bad("chip", m.chip+", which the module "+s.Module+" has", s.Chip)
	}
	if s.Calibration != "" && !fileForm.MatchString(s.Calibration) {
		bad("calibration", "a file name of at most 63 characters", s.Calibration)
	}
	if s.DelayS != nil && (*s.DelayS < 0 || *s.DelayS > 120) {
		bad("delay_s", "0 to 120", *s.DelayS)
	}
	for _, l := range []struct{ key, line string }{{"reset_line", s.ResetLine}, {"wake_line", s.WakeLine}, {"busy_line", s.BusyLine}, {"irq_line", s.IRQLine}} {
		if l.line != "" && !lineForm.MatchString(l.line) {
			bad(l.key, "a line such as GPIO17 or gpiochip0/17", l.line)
		}
	}
	if s.ResetLine == "" && s.ActiveHigh {
		bad("reset_active_high", "false without a reset_line", s.ActiveHigh)
	}
	if s.Host != "" && !hostForm.MatchString(s.Host) {
		bad("host", "bus and name such as platform/3f300000.mmcnr", s.Host)
	}
	if _, err := s.scheme(); err != nil {
		bad("scheme", schemes, s.Scheme)
	}
	for key, db := range map[string]float64{"antenna_gain_dbi": s.GainDB, "cable_loss_db": s.LossDB} {
		if !(db >= -10 && db <= 30) || key == "cable_loss_db" && db < 0 {
			bad(key, "a number of dB up to 30; cables lose, and do not gain", db)
		}
	}
	if !(s.MaxPowerDBm >= 0 && s.MaxPowerDBm <= 30) {
		bad("max_power_dbm", "0 to 30", s.MaxPowerDBm)
	}
	for _, key := range slices.Sorted(maps.Keys(s.Params)) {
		value := s.Params[key]
		switch {
		case slices.Contains(own, key):
			bad("params."+key, "no value: it is computed from country, channel, antenna and node", value)
		case !keyForm.MatchString(key) || !valueForm.MatchString(value):
			bad("params."+key, "a parameter of the driver without spaces", value)
		}
	}
	return errors.Join(errs...)
}

func list[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// scheme is the channelization as a number.
func (s Settings) scheme() (channel.Scheme, error) { return channel.ParseScheme(s.Scheme) }

// calibration is the name of the file for a region.
func (s Settings) calibration(region string) (string, error) {
	if s.Module == "" {
		return s.Calibration, nil
	}
	files := modules[s.Module].files
	if f, ok := files[region]; ok {
		return f, nil
	}
	if f, ok := files[""]; ok {
		return f, nil
	}
	return "", fmt.Errorf("module %s has no calibration file for %s, only for %s: if its maker has one, name it in halow.calibration of the board", s.Module, region, list(files))
}

// host is the controller as a device.
func (s Settings) host(sys string) module.Device {
	bus, name, _ := strings.Cut(s.Host, "/")
	return module.Device{Sys: sys, Bus: bus, Name: name}
}
