package halow

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers"
	"halo.internal/drivers/halow/command"
	"halo.internal/drivers/nl80211"
	"halo.internal/hal/gpio"
	"halo.internal/hal/module"
)

func TestSettings(t *testing.T) {
	good := Settings{Chip: "mm6108", Bus: "sdio", Module: "fgh100m", ResetLine: "GPIO17", Host: "platform/3f300000.mmcnr", Params: map[string]string{"sdio_reset_time": "400"}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	written, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := ParseSettings(written); err != nil || !reflect.DeepEqual(read, good) {
		t.Errorf("%s: got %+v, %v", written, read, err)
	}
	for _, bad := range []string{"", "{}", `{"chip":"mm6108","bus":"sdio","module":"fgh100m","led_line":"GPIO23"}`} {
		if s, err := ParseSettings([]byte(bad)); err == nil {
			t.Errorf("%q gives %+v", bad, s)
		}
	}
	hour := 3600
	for name, tc := range map[string]struct {
		change func(*Settings)
		want   string
	}{
		"no chip":                 {func(s *Settings) { s.Chip = "" }, `halow.chip: expected one of mm6108, mm8108, got ""`},
		"no such bus":             {func(s *Settings) { s.Bus = "usb" }, "halow.bus: expected one of sdio, spi for mm6108"},
		"no module":               {func(s *Settings) { s.Module = "" }, "halow.module: expected one of fgh100m"},
		"unknown module":          {func(s *Settings) { s.Module = "x" }, "for others the file in calibration"},
		"module and file":         {func(s *Settings) { s.Calibration = "bcf_x.bin" }, "halow.calibration: expected none beside"},
		"another chip's module":   {func(s *Settings) { s.Module = "mf15457" }, "halow.chip: expected mm8108"},
		"a path":                  {func(s *Settings) { s.Module, s.Calibration = "", "../bcf.bin" }, "halow.calibration: expected a file name"},
		"an hour":                 {func(s *Settings) { s.DelayS = &hour }, "halow.delay_s: expected 0 to 120"},
		"a line by number":        {func(s *Settings) { s.ResetLine = "17 or 18" }, "halow.reset_line"},
		"level of no line":        {func(s *Settings) { s.ResetLine, s.ActiveHigh = "", true }, "halow.reset_active_high"},
		"host":                    {func(s *Settings) { s.Host = "/sys/devices/x" }, "halow.host"},
		"scheme":                  {func(s *Settings) { s.Scheme = "2020" }, "halow.scheme: expected one of 802.11-2020, 802.11-2024, 802.11-REVmf"},
		"antenna":                 {func(s *Settings) { s.GainDB = 300 }, "halow.antenna_gain_dbi"},
		"a cable that amplifies":  {func(s *Settings) { s.LossDB = -1 }, "halow.cable_loss_db"},
		"kilowatts":               {func(s *Settings) { s.MaxPowerDBm = 60 }, "halow.max_power_dbm"},
		"gets round the law":      {func(s *Settings) { s.Params = map[string]string{"country": "US"} }, "halow.params.country: expected no value"},
		"more than one parameter": {func(s *Settings) { s.Params = map[string]string{"debug_mask": "1 country=US"} }, "halow.params.debug_mask"},
		"no parameter":            {func(s *Settings) { s.Params = map[string]string{"x=y country": "US"} }, "without spaces"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			tc.change(&s)
			err := s.Check()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if _, ok := errors.AsType[*Problem](err); !ok {
				t.Errorf("%T is no Problem", err)
			}
			if _, err := New(Config{Settings: s, Suffix: [3]byte{1}}); err == nil {
				t.Error("a driver was made of it")
			}
		})
	}
	if _, err := New(Config{Settings: good}); err == nil || !strings.Contains(err.Error(), "another at each load") {
		t.Errorf("without an address: %v", err)
	}
}

// board is a machine with a chip of Morse's, which notes what is done with it.
type board struct {
	t        *testing.T
	dir      string
	lacks    string // a module that is not in the image
	loaded   bool
	silent   bool // no chip comes back
	duty     int
	status   int32 // of all commands
	answers  error
	done     []string
	settings Settings
}

func newBoard(t *testing.T) *board {
	b := &board{t: t, dir: t.TempDir(), duty: 280, settings: Settings{
		Chip: "mm6108", Bus: "sdio", Module: "fgh100m", ResetLine: "GPIO17", Host: "platform/3f300000.mmcnr", GainDB: 2, Params: map[string]string{"sdio_reset_time": "400"},
	}}
	fw := filepath.Join(b.dir, "firmware")
	if err := os.MkdirAll(fw, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, fw, "mm6108.bin", elf32(true, ".text"))
	write(t, fw, "bcf_fgh100mabmd.bin", elf32(false, ".board_config", ".regdom_US"))
	write(t, fw, "bcf_fgh100maamd.bin", elf32(false, ".board_config", ".regdom_EU"))
	b.file("bus/sdio/devices/mmc1:0001:1/modalias", "sdio:c07v325Bd0709\n")
	b.file("bus/platform/devices/3f300000.mmcnr/modalias", "of:NmmcnrT(null)Cbrcm,bcm2835-mmc\n")
	b.file("bus/platform/drivers/mmc-bcm2835/bind", "")
	b.file("bus/platform/drivers/mmc-bcm2835/unbind", "")
	if err := os.Symlink("../../drivers/mmc-bcm2835", filepath.Join(b.dir, "sys/bus/platform/devices/3f300000.mmcnr/driver")); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *board) file(name, content string) {
	b.t.Helper()
	path := filepath.Join(b.dir, "sys", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) say(format string, args ...any) {
	b.done = append(b.done, fmt.Sprintf(format, args...))
}

func (b *board) driver(country string, number int) *Driver {
	b.t.Helper()
	d, err := New(Config{
		Settings: b.settings, Country: country, Channel: number, Suffix: [3]byte{1, 2, 3}, Modules: b,
		Firmware: filepath.Join(b.dir, "firmware"), Sys: filepath.Join(b.dir, "sys"), Patience: 50 * time.Millisecond,
		Dial: func() (Kernel, error) { return b, nil },
		Wait: func(ctx context.Context, begin func() error, done func() (bool, error)) error {
			if err := begin(); err != nil {
				return err
			}
			if ok, err := done(); !ok {
				<-ctx.Done()
				return errors.Join(ctx.Err(), err)
			}
			return nil
		},
		Line:  func(name string) (gpio.Line, error) { b.say("line %s", name); return line{b}, nil },
		Sleep: func(_ context.Context, d time.Duration) error { b.say("sleep %s", d); return nil },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// line notes beside all else, and shows in which order what is written.
type line struct{ b *board }

func (l line) Drive(high bool) error {
	unbound, err := os.ReadFile(filepath.Join(l.b.dir, "sys/bus/platform/drivers/mmc-bcm2835/unbind"))
	l.b.say("drive %v, unbound %q", high, unbound)
	return err
}

func (l line) Release() error {
	bound, err := os.ReadFile(filepath.Join(l.b.dir, "sys/bus/platform/drivers/mmc-bcm2835/bind"))
	l.b.say("release, bound %q", bound)
	if l.b.silent {
		err = errors.Join(err, os.RemoveAll(filepath.Join(l.b.dir, "sys/bus/sdio/devices/mmc1:0001:1")))
	}
	return err
}

func (b *board) Load(string) error { return nil }

func (b *board) LoadWith(name, params string) error {
	b.say("load %s %s", name, params)
	b.loaded = true
	b.file("class/ieee80211/phy0/index", "0\n")
	b.file("class/ieee80211/phy0/device/driver/x", "")
	_ = os.Symlink("../../../../module/morse", filepath.Join(b.dir, "sys/class/ieee80211/phy0/device/driver/module")) // there after a second load
	return nil
}

func (b *board) Unload(_ context.Context, name string) error {
	b.say("unload %s", name)
	b.loaded = b.loaded && name != Module
	return nil
}

func (b *board) ForceUnload(_ context.Context, name string) error {
	b.say("force %s", name)
	b.loaded = false
	return nil
}

func (b *board) File(name string) (string, error) {
	if name == b.lacks {
		return "", fmt.Errorf("module %s: %w", name, module.ErrUnknown)
	}
	return "/lib/modules/x/" + name + ".ko", nil
}

func (b *board) Wiphys() ([]nl80211.Wiphy, error) {
	if !b.loaded {
		return nil, nil
	}
	return []nl80211.Wiphy{{Index: 0, Name: "phy0"}}, nil
}

func (b *board) InterfacesOf(int) ([]nl80211.Interface, error) {
	return []nl80211.Interface{{Index: 4, Name: "mesh0", Channel: nl80211.Channel{FreqMHz: 5220}}, {Index: 5, Name: "idle"}}, nil
}

func (b *board) AbortScan(i int) error { b.say("abort %d", i); return unix.ENOENT }

func (b *board) DeleteInterface(i int) error { b.say("delete %d", i); return nil }

func (b *board) Surveys(int) ([]nl80211.Survey, error) { return nil, nil }

func (b *board) Close() error { return nil }

// Vendor answers as firmware that works.
func (b *board) Vendor(index int, _ nl80211.VendorID, data []byte, _ bool) ([][]byte, error) {
	if index != 4 {
		b.t.Errorf("interface %d was asked", index)
	}
	const head = 12
	if command.ID(binary.LittleEndian.Uint16(data[2:])) == command.SetDutyCycle && b.status == 0 {
		b.duty = int(binary.LittleEndian.Uint32(data[head+1:]))
	}
	answer := binary.LittleEndian.AppendUint32(slices.Clone(data[:head]), uint32(b.status))
	answer[0] = 2
	answer = append(answer, 0)
	return [][]byte{binary.LittleEndian.AppendUint32(answer, uint32(b.duty))}, b.answers
}

func TestLoad(t *testing.T) {
	b := newBoard(t)
	d := b.driver("US", 28)
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"sleep 5s", "load morse country=US bcf=bcf_fgh100mabmd.bin macaddr_suffix=01:02:03 enable_ps=0 tx_max_power_mbm=2200 enable_auto_duty_cycle=1 enable_auto_mpsw=1 sdio_reset_time=400"}
	if !slices.Equal(b.done, want) {
		t.Errorf("did %q, want %q", b.done, want)
	}
	b.done = nil
	if err := drivers.Reload(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if want := []string{"unload morse", "unload dot11ah", want[1]}; !slices.Equal(b.done, want) { // the chip had its time
		t.Errorf("reload did %q, want %q", b.done, want)
	}
	k, err := d.Channel()
	if err != nil || k != (nl80211.Channel{FreqMHz: 5560, Width: nl80211.Width160, Center1MHz: 5570}) {
		t.Errorf("channel: %v, %v", k, err)
	}
}

// TestGermany loads by the rules of EU: less power, and a duty cycle.
func TestGermany(t *testing.T) {
	b := newBoard(t)
	zero := 0
	b.settings.DelayS = &zero
	d := b.driver("DE", 9)
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.done[len(b.done)-1]; !strings.Contains(got, "country=EU bcf=bcf_fgh100maamd.bin") || !strings.Contains(got, "tx_max_power_mbm=1400") { // 16 dBm less the antenna's 2
		t.Errorf("got %q", got)
	}
	if b.done[0] != "sleep 0s" {
		t.Errorf("waited %q", b.done[0])
	}
	if err := d.Health(t.Context()); err != nil {
		t.Error(err)
	}
	b.duty = 1000
	if err := d.Health(t.Context()); err != nil || b.duty != 280 {
		t.Errorf("above the duty cycle: %v, and it keeps to %d hundredths of a percent, want 280", err, b.duty)
	}
	b.status = -32757
	if err := d.Health(t.Context()); err != nil {
		t.Errorf("firmware that does not know the commands is taken for one that hangs: %v", err)
	}
	b.status = 0
	b.answers = unix.ETIMEDOUT
	if err := d.Health(t.Context()); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a chip that hangs: %v", err)
	}
}

func TestAustralia(t *testing.T) {
	b := newBoard(t)
	b.settings.Module, b.settings.Calibration, b.settings.Scheme = "", "bcf_au.bin", "802.11-REVmf"
	write(t, filepath.Join(b.dir, "firmware"), "bcf_au.bin", elf32(false, ".board_config", ".regdom_AU"))
	if err := b.driver("AU", 43).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.done[len(b.done)-1]; !strings.Contains(got, "channelization_scheme=3") {
		t.Errorf("got %q", got)
	}
}

func TestPrepareRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		country string
		channel int
		change  func(*board)
		want    string
	}{
		"no rules":                    {"RU", 9, nil, "HaLow stays off"},
		"no such channel":             {"DE", 28, nil, "EU (fixed) has no S1G channel 28"},
		"no module":                   {"US", 28, func(b *board) { b.lacks = "dot11ah" }, "halow mm6108: module dot11ah: no such module"},
		"no driver":                   {"US", 28, func(b *board) { b.lacks = "morse" }, "module morse"},
		"no file for this country":    {"JP", 9, nil, "calibration file bcf_fgh100mjaamd.bin is not in"},
		"the module is not for it":    {"NZ", 44, nil, "module fgh100m has no calibration file for NZ, only for EU, JP, US"},
		"no firmware":                 {"US", 28, func(b *board) { _ = os.Remove(filepath.Join(b.dir, "firmware/mm6108.bin")) }, "firmware mm6108.bin is not in"},
		"another country's file":      {"US", 28, func(b *board) { b.settings.Module, b.settings.Calibration = "", "bcf_fgh100maamd.bin" }, "has no data for US, only for EU"},
		"an antenna of far too much":  {"DE", 9, func(b *board) { b.settings.GainDB = 20 }, "less than 1 mW is left"},
		"a country with several ways": {"AU", 44, nil, "name that of the driver"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t)
			if tc.change != nil {
				tc.change(b)
			}
			d := b.driver(tc.country, tc.channel)
			err := d.Load(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if b.done != nil {
				t.Errorf("did %q before it knew", b.done)
			}
		})
	}
}

func TestReset(t *testing.T) {
	b := newBoard(t)
	d := b.driver("US", 28)
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.done = nil
	if err := d.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"line GPIO17", `drive false, unbound "3f300000.mmcnr"`, `release, bound ""`}; !slices.Equal(b.done, want) {
		t.Errorf("did %q, want %q", b.done, want)
	}
	if bound, err := os.ReadFile(filepath.Join(b.dir, "sys/bus/platform/drivers/mmc-bcm2835/bind")); err != nil || string(bound) != "3f300000.mmcnr" {
		t.Errorf("bound %q, %v", bound, err)
	}
	b.done = nil
	if err := d.Load(t.Context()); err != nil || b.done[0] != "sleep 5s" {
		t.Errorf("after a reset: %v, did %q, want the chip to have its time anew", err, b.done)
	}
	b.silent = true
	if err := d.Reset(t.Context()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no mm6108 on sdio") {
		t.Errorf("a chip that stays away: %v", err)
	}
	if err := d.Load(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("load without a chip: %v", err)
	}
	b.settings.ResetLine = ""
	if err := b.driver("US", 28).Reset(t.Context()); !errors.Is(err, drivers.ErrNoReset) {
		t.Errorf("without a line: %v", err)
	}
}

func TestForceUnload(t *testing.T) {
	b := newBoard(t)
	d := b.driver("US", 28)
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.done = nil
	step, err := drivers.Recover(t.Context(), d)
	if err != nil || step != drivers.Reloaded {
		t.Fatalf("%s, %v", step, err)
	}
	if want := []string{"abort 4", "delete 4", "abort 5", "delete 5", "force morse", "unload dot11ah"}; !slices.Equal(b.done[:6], want) {
		t.Errorf("did %q, want %q first", b.done, want)
	}
}
