package wireless

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers"
	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
)

// chip is a radio with its driver, which notes what is done with it.
type chip struct {
	mu      sync.Mutex    // guards what follows
	refuses error         // Prepare
	loads   error         // Load
	unloads error         // ForceUnload
	hangs   chan struct{} // Load and ForceUnload, whatever becomes of ctx, until it is closed; nil: they do not
	hangsAt string        // which of both; empty: both
	health  error
	loaded  bool
	wiphys  []nl80211.Wiphy // while it is loaded
	done    []string
	law     legal.Answer
	params  string
}

func (c *chip) Name() string { return "halow chip" }
func (c *chip) Prepare() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refuses
}

// hang is what nobody can end.
func (c *chip) hang(doing string) {
	c.mu.Lock()
	hangs := c.hangs
	if c.hangsAt != "" && c.hangsAt != doing {
		hangs = nil
	}
	if hangs != nil {
		c.done = append(c.done, doing+" hangs")
	}
	c.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
}

func (c *chip) Load(context.Context) error {
	c.hang("load")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, "load")
	if c.loaded {
		return fmt.Errorf("load: %w", module.ErrLoaded)
	}
	c.loaded = c.loads == nil
	return c.loads
}

func (c *chip) Unload(context.Context) error { return errors.New("nobody is to unload it politely") }
func (c *chip) ForceUnload(context.Context) error {
	c.hang("unload")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, "unload")
	c.loaded = c.loaded && c.unloads != nil
	return c.unloads
}

func (c *chip) Reset(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, "reset")
	return nil
}

func (c *chip) Wiphys() ([]nl80211.Wiphy, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		return nil, fmt.Errorf("no cfg80211: %w", fs.ErrNotExist)
	}
	return c.wiphys, nil
}

func (c *chip) Health(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health
}

func (c *chip) Parameters() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.params
}

func (c *chip) Legal() legal.Answer { return c.law }
func (c *chip) Channel() (nl80211.Channel, error) {
	return nl80211.Channel{FreqMHz: 5180, Width: nl80211.Width20, Center1MHz: 5180}, nil
}

func (c *chip) Power() (legal.DBm, error) {
	return c.law.MaxEIRP, c.law.Check(legal.Station{Conducted: c.law.MaxEIRP})
}

func (c *chip) change(f func()) { c.mu.Lock(); defer c.mu.Unlock(); f() }

// did returns what was done since it was last asked.
func (c *chip) did() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := strings.Join(c.done, " ")
	c.done = nil
	return all
}

// newChip is on channel 1 of the European Union.
func newChip() *chip {
	return &chip{params: "country=EU", wiphys: []nl80211.Wiphy{{Index: 5, Name: "phy5"}}, law: legal.HaLow(legal.S1G{Country: "DE", Number: 1})}
}

// board is a world with a chip.
func (o *world) board(c *chip) *Wireless {
	w := o.with(profile)
	w.newHaLow = func() (halowDriver, error) { return c, nil }
	o.sysfs = []wifi.Radio{{Index: 5, Name: "phy5", Module: w.halowModule}, {Index: 6, Name: "phy6", Module: "ath9k_htc", Device: module.Device{Bus: "usb", Name: "1-1:1.0"}}, {Index: 7, Name: "phy7", Module: "mac80211_hwsim"}}
	return w
}

// run runs the radios until the function it returns is called.
func run(t *testing.T, w *Wireless) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	synctest.Wait()
	return func() { cancel(); <-done }
}

func absent(w *Wireless) string {
	r, ok := w.absentRadio()
	if !ok {
		return ""
	}
	return r.Name + ": " + r.Detail
}

func TestSettingsOfTheBoardAndTheMeshHaveToAgree(t *testing.T) {
	if slices.ContainsFunc(bundle.HaLowSchemes, func(s string) bool { _, err := channel.ParseScheme(s); return err != nil }) || len(bundle.HaLowSchemes) != 3 {
		t.Errorf("schemes of bundles: %q", bundle.HaLowSchemes)
	}
	const good = `{"chip":"mm6108","bus":"sdio","module":"fgh100m","antenna_gain_dbi":0,"cable_loss_db":0}`
	ieee20 := strings.Replace(good, "{", `{"scheme":"802.11-2020",`, 1)
	for name, tc := range map[string]struct {
		file, country string
		channel       int
		scheme        string
		want          string // part of the refusal
	}{
		"all is well":           {good, "US", 44, "", ""},
		"numbered alike":        {ieee20, "AU", 44, "802.11-2020", ""},
		"numbered by the mesh":  {good, "AU", 43, "802.11-REVmf", ""},
		"no settings":           {"{}", "US", 44, "", "halow.json"},
		"cut short":             {good[:20], "US", 44, "", "write the card anew"},
		"no channel":            {good, "US", 0, "", "halo-image bundle new --halow-channel"},
		"numbered otherwise":    {ieee20, "AU", 44, "802.11-2024", "change one of them"},
		"numbered by one alone": {ieee20, "AU", 44, "", "mesh.halow_scheme"},
		"no country":            {good, "", 44, "", "HaLow stays off"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "halow.json")
			if err := os.WriteFile(file, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			o := &world{}
			m := profile
			m.HaLowChannel, m.HaLowScheme = tc.channel, tc.scheme
			w := o.with(m)
			w.c.HaLow, w.c.Country, w.c.Suffix = file, tc.country, [3]byte{1, 2, 3}
			d, unread := w.setUpHaLow()
			if unread {
				t.Error("what is in the files is not looked at again")
			}
			told := o.told(EventDriverRefused)
			if tc.want == "" {
				if d == nil || len(told) != 0 || absent(w) != "halow mm6108: driver loading" || !d.Legal().Allowed {
					t.Errorf("got %v, %+v, %s", d, told, absent(w))
				}
				return
			}
			if d != nil || len(told) != 1 || !strings.Contains(told[0].Fields["reason"], tc.want) || absent(w) != "halow: refused: "+told[0].Fields["reason"] {
				t.Errorf("got %v, %+v, %s, want %q", d, told, absent(w), tc.want)
			}
		})
	}
	o := &world{}
	w := o.with(profile)
	w.c.HaLow = filepath.Join(t.TempDir(), "halow.json")
	if d, _ := w.setUpHaLow(); d != nil || absent(w) != "" || len(o.events) != 0 {
		t.Errorf("a board without HaLow: %v, %s, %+v", d, absent(w), o.events)
	}
}

// TestAMissingFileKeepsTheDriverOff until it is there.
func TestAMissingFileKeepsTheDriverOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		c.refuses = errors.New("firmware mm6108.bin is not in /lib/firmware/morse: halo-image image --firmware puts it there")
		w := o.board(c)
		stop := run(t, w)
		defer stop()
		time.Sleep(3 * time.Hour)
		list := w.List()
		if len(list) != 1 || !list[0].Absent || list[0].Member || list[0].Name != "halow chip" || list[0].Detail != "refused: "+c.refuses.Error() {
			t.Errorf("got %+v", list)
		}
		if told := o.told(EventDriverRefused); len(told) != 1 || told[0].Fields["reason"] != c.refuses.Error() {
			t.Errorf("told of %+v", told)
		}
		if did := c.did(); did != "unload" { // what an earlier process has loaded
			t.Errorf("it was tried even so: %s", did)
		}
		c.change(func() { c.refuses = nil })
		time.Sleep(time.Hour)
		if absent(w) != "" || len(o.told(EventDriverLoaded)) != 1 {
			t.Errorf("with the file: %s, %+v", absent(w), o.events)
		}
	})
}

// TestSettingsThatCannotBeRead just now keep HaLow off until they can, which is told once.
func TestSettingsThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		w := o.board(c)
		worn := &fs.PathError{Op: "read", Path: "halow.json", Err: unix.EIO}
		var mu sync.Mutex
		reads, well := 0, false
		w.newHaLow = func() (halowDriver, error) {
			mu.Lock()
			defer mu.Unlock()
			if reads++; !well {
				return nil, fmt.Errorf("settings: %w", worn)
			}
			return c, nil
		}
		stop := run(t, w)
		defer stop()
		time.Sleep(24 * time.Hour)
		if told := o.told(EventDriverRefused); len(told) != 1 || absent(w) != "halow: refused: settings: "+worn.Error() {
			t.Errorf("told of %+v, %s", told, absent(w))
		}
		mu.Lock()
		if most := int(24*time.Hour/againLast) + 6; reads > most {
			t.Errorf("it was read %d times in a day, want at most %d", reads, most)
		}
		well = true
		mu.Unlock()
		time.Sleep(time.Hour)
		if absent(w) != "" || len(o.told(EventDriverLoaded)) != 1 {
			t.Errorf("once it can be read: %s, %+v", absent(w), o.events)
		}
	})
}

// TestAChipThatIsLate fails at first; then the hardware is tried as well.
func TestAChipThatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		c.loads = errors.New("no mm6108 on sdio")
		w := o.board(c)
		stop := run(t, w)
		defer stop()
		if did := c.did(); did != "unload load" || absent(w) != "halow chip: driver failed: no mm6108 on sdio" {
			t.Errorf("at first: %s, %s", did, absent(w))
		}
		time.Sleep(90 * time.Second)
		if did := c.did(); did != "unload load unload reset unload load" {
			t.Errorf("then: %s", did)
		}
		c.change(func() { c.loads = nil })
		time.Sleep(time.Hour)
		if absent(w) != "" || len(o.told(EventDriverFailed)) > 2 || len(o.told(EventDriverLoaded)) != 1 {
			t.Errorf("at last: %s, %+v", absent(w), o.events)
		}
	})
}

// TestADriverOfAnEarlierProcess has parameters that nobody knows, and has sent what
// counts.
func TestADriverOfAnEarlierProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		c.loaded = true
		o.ifaces = []nl80211.Interface{{Index: 3, Name: "mesh0", Wiphy: 5, Type: nl80211.MeshPoint}}
		o.surveys = []nl80211.Survey{{FreqMHz: 5180, InUse: true, Tx: 40 * time.Second}}
		w := o.board(c)
		stop := run(t, w)
		defer stop()
		if did := c.did(); did != "unload load" {
			t.Errorf("did %s", did)
		}
		if left := w.meter.account.Left(time.Now()); left != w.meter.account.Budget()-40*time.Second {
			t.Errorf("%s of airtime left of %s", left, w.meter.account.Budget())
		}
	})
}

// TestADriverStays over a switch of the mesh, or a look for it on another channel, unless
// it is to have other parameters there, or nobody knows how it is.
func TestADriverStays(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(c *chip)
		want   string
	}{
		"on another channel":       {func(*chip) {}, ""},
		"with another power there": {func(c *chip) { c.params = "country=EU tx_max_power_mbm=900" }, "unload load"},
		"its radio is gone":        {func(c *chip) { c.wiphys = nil }, "unload load"},
		"a file is gone":           {func(c *chip) { c.refuses = errors.New("no calibration file") }, "unload"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, c := &world{}, newChip()
				w := o.board(c)
				m := profile
				m.HaLowChannel = 1
				w.Change(m)
				run(t, w)()
				if did := c.did(); did != "unload load" {
					t.Fatalf("at first: %s", did)
				}
				for i := range 5 {
					m.HaLowChannel = 3 + 2*i%4
					w.Change(m)
					if i == 4 {
						c.change(func() { tc.change(c) })
					}
					stop := run(t, w)
					if at := absent(w); i < 4 && at != "" {
						t.Errorf("on channel %d: %s", m.HaLowChannel, at)
					}
					stop()
					if did := c.did(); i < 4 && did != "" || i == 4 && did != tc.want {
						t.Errorf("on channel %d: %q", m.HaLowChannel, did)
					}
				}
			})
		})
	}
}

// TestADriverThatFailed is loaded anew at the next switch.
func TestADriverThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		c.loads = errors.New("no mm6108 on sdio")
		w := o.board(c)
		run(t, w)()
		c.did()
		c.change(func() { c.loads = nil })
		run(t, w)()
		if did := c.did(); did != "unload load" {
			t.Errorf("did %s", did)
		}
	})
}

// TestADriverThatDoesNotGo keeps its radio off the air until it does.
func TestADriverThatDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		c.loaded, c.unloads = true, errors.New("its driver does not let go")
		w := o.board(c)
		stop := run(t, w)
		defer stop()
		member := w.member()
		if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err == nil || !strings.Contains(err.Error(), "halow chip was loaded before, and does not go: its driver does not let go") {
			t.Errorf("got %v", err)
		}
		c.change(func() { c.unloads = nil })
		time.Sleep(time.Hour)
		if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err != nil || absent(w) != "" {
			t.Errorf("once it went: %v, %s", err, absent(w))
		}
	})
}

// TestADriverIsToBlame only when none of its radios works.
func TestADriverIsToBlame(t *testing.T) {
	peer := []radio.Peer{{Peering: peering.Estab}}
	late := []radio.Peer{{Peering: peering.OpnSnt}}
	here := seat{Device: module.Device{Bus: "usb", Name: "1-1:1.0", Sys: t.TempDir()}, alias: "usb:v0CF3p9271"}
	dir := filepath.Join(here.Sys, "bus/usb/devices/1-1:1.0")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "modalias"), []byte(here.alias+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	gone, other := here, here
	gone.Name, other.alias = "1-2:1.0", "usb:v1546p01A8"
	for name, tc := range map[string]struct {
		vanished bool
		seats    []seat
		states   []radio.State
		health   error
		want     string
	}{
		"it works":                {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Peers: peer}}, health: errors.New("mad")},
		"nobody is there":         {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Peers: late}}},
		"nor does it answer":      {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Peers: late}}, health: errors.New("the firmware does not answer"), want: "the firmware does not answer"},
		"it fails":                {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Name: "phy5", Detail: "EIO", Failures: 5}}, want: "radio phy5 failed 5 times in a row, at last: EIO"},
		"it failed, it may be":    {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Detail: "EIO", Failures: 4}}},
		"it is refused":           {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Detail: "refused: law", Refused: true}}},
		"another of it works":     {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Detail: "EIO", Failures: 9}, {Wiphy: 6, Iface: "mesh1"}}},
		"another of it is taken":  {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Detail: "EIO", Failures: 9}, {Wiphy: 6, Detail: "it is in use"}}},
		"another of it joins":     {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Detail: "EIO", Failures: 9}, {Wiphy: 6, Iface: "mesh1", Detail: "it has not joined the mesh yet"}}},
		"another driver's works":  {states: []radio.State{{Wiphy: 5, Iface: "mesh0", Name: "phy5", Detail: "EIO", Failures: 9}, {Wiphy: 8, Iface: "mesh1", Peers: peer}}, want: "radio phy5 failed 9 times in a row, at last: EIO"},
		"nobody asked it to join": {},
		"vanished":                {vanished: true, want: "its radio has vanished"},
		"unplugged":               {vanished: true, seats: []seat{gone}},
		"another is in its place": {vanished: true, seats: []seat{other}},
		"its device is there":     {vanished: true, seats: []seat{gone, here}, want: "its radio has vanished"},
	} {
		t.Run(name, func(t *testing.T) {
			o, c := &world{states: tc.states}, newChip()
			c.loaded, c.health = !tc.vanished, tc.health
			c.wiphys = append(c.wiphys, nl80211.Wiphy{Index: 6, Name: "phy6"})
			w := o.with(profile)
			w.tend(c, tc.seats)
			got := ""
			for now := time.Duration(0); now < 5*time.Minute; now += look {
				seen, _ := w.observe(t.Context())
				for _, a := range w.machine.Step(now, seen) {
					if a.Rung == heal.Reload {
						got = a.Why
					}
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestAHungDriverIsLoadedAnew ever more rarely while that does not help.
func TestAHungDriverIsLoadedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		o.states = []radio.State{{Wiphy: 6, Name: "phy6", Iface: "mesh0", Detail: "EIO", Failures: 7}}
		c.wiphys, c.loaded = []nl80211.Wiphy{{Index: 6}}, true
		w := o.board(c)
		w.newHaLow = func() (halowDriver, error) { return nil, nil }
		w.newWiFi = func(name string, _ drivers.Modules) drivers.Radio {
			if name != "ath9k_htc" {
				t.Errorf("driver %s", name)
			}
			return c
		}
		stop := run(t, w)
		defer stop()
		time.Sleep(25 * time.Second)
		if did := c.did(); did != "" {
			t.Errorf("after two looks: %s", did)
		}
		time.Sleep(50 * time.Second)
		if told := o.told(EventDriverRecovered); c.did() != "unload load" || len(told) != 1 || told[0].Fields["step"] != "reloaded" {
			t.Errorf("recovered: %+v", o.events)
		}
		time.Sleep(12 * time.Hour)
		if n := len(o.told(EventDriverRecovered)); n < 20 || n > 30 {
			t.Errorf("%d recoveries in half a day that did not help", n)
		}
		o.change(func() { o.states[0].Detail, o.states[0].Failures = "", 0 })
		synctest.Wait()
		n := len(o.told(EventDriverRecovered))
		time.Sleep(2 * time.Hour)
		if got := len(o.told(EventDriverRecovered)); got != n {
			t.Error("a driver whose radio works was loaded anew")
		}
		o.change(func() { o.states[0].Detail, o.states[0].Failures = "EIO", 7 })
		time.Sleep(80 * time.Second)
		if got := len(o.told(EventDriverRecovered)); got != n+1 {
			t.Errorf("after two hours without a fault: %d recoveries more", got-n)
		}
		c.change(func() { c.refuses = errors.New("module ath9k_htc: no such module") })
		time.Sleep(30 * time.Minute)
		if told := o.told(EventDriverFailed); len(told) == 0 || !strings.Contains(told[0].Message, "no such module") {
			t.Errorf("failed: %+v", told)
		}
	})
}

func TestWhatARadioIsToBe(t *testing.T) {
	o, c := &world{}, newChip()
	o.rules = nl80211.Regulatory{Country: "DE", Wiphy: -1, Rules: []nl80211.Rule{{StartKHz: 2_400_000, EndKHz: 2_483_500, MaxWidthKHz: 40_000, MaxEIRPMBm: 2000}}}
	o.wiphys = []nl80211.Wiphy{{Index: 6, Name: "phy6", Bands: []nl80211.Band{{Channels: []nl80211.Allowed{{FreqMHz: 2412, MaxPowerMB: 1700}, {FreqMHz: 2432, No40Plus: true}, {FreqMHz: 5180}}}}}}
	w := o.board(c)
	member := w.member()
	if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err == nil || !strings.Contains(err.Error(), "no settings for one") {
		t.Errorf("HaLow that the board does not speak of: %v", err)
	}
	w.setUpHaLow()

	member = w.member()
	if err := w.fit(nl80211.Wiphy{Index: 6, Name: "phy6"}, &member); err != nil || member.MaxPowerMBm != 1700 || member.Morse || member.Channel.FreqMHz != 2412 {
		t.Errorf("Wi-Fi: %+v, %v", member, err)
	}
	for name, change := range map[string]func(*radio.Config){
		"no rule lets anybody use 5170 to 5190 MHz": func(c *radio.Config) {
			c.Channel = nl80211.Channel{FreqMHz: 5180, Width: nl80211.Width20}
		},
		"it must not be 40 MHz wide there": func(c *radio.Config) {
			c.Channel = nl80211.Channel{FreqMHz: 2432, Width: nl80211.Width40, Center1MHz: 2442}
		},
		"40 MHz wide at most": func(c *radio.Config) {
			c.Channel = nl80211.Channel{FreqMHz: 2432, Width: nl80211.Width80, Center1MHz: 2442}
		},
	} {
		member = w.member()
		change(&member)
		if err := w.fit(nl80211.Wiphy{Index: 6, Name: "phy6"}, &member); !errors.Is(err, legal.ErrRefused) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "haloctl mesh channels") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := w.fit(nl80211.Wiphy{Index: 9, Name: "phy9"}, &member); err == nil {
		t.Error("a radio that is gone was let in")
	}

	member = w.member()
	if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err != nil || !member.Morse || member.SAE != sae.HaLow || member.Peering != peering.HaLow || member.Channel.FreqMHz != 5180 || member.MaxPowerMBm != 1600 {
		t.Errorf("HaLow: %+v, %v", member, err)
	}
	c.law = legal.HaLow(legal.S1G{Country: "DE", Number: 2})
	if err := w.fit(nl80211.Wiphy{Index: 5}, &member); !errors.Is(err, legal.ErrRefused) || !strings.Contains(err.Error(), "has no S1G channel 2") {
		t.Errorf("HaLow on a channel that is not there: %v", err)
	}
}

// TestRatesOfHaLow are those of its channel, not of the one that stands for it.
func TestRatesOfHaLow(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	rate := nl80211.Rate{Bitrate: 722, MCS: 7, NSS: 1, WidthMHz: 20, ShortGI: true, Kind: "VHT"}
	o, c := &world{}, newChip()
	w := o.board(c)
	w.setUpHaLow()
	o.ifaces = []nl80211.Interface{{Index: 3, Name: "mesh0"}, {Index: 4, Name: "mesh1"}}
	o.stations = map[int][]nl80211.StationInfo{3: {{MAC: mac, TxRate: rate}}, 4: {{MAC: mac, TxRate: rate}}}
	o.states = []radio.State{
		{Wiphy: 5, Name: "phy5", Iface: "mesh0", Peers: []radio.Peer{{MAC: dot11.MAC(mac), Peering: peering.Estab}}},
		{Wiphy: 6, Name: "phy6", Iface: "mesh1", Peers: []radio.Peer{{MAC: dot11.MAC(mac), Peering: peering.Estab}}},
	}
	list := w.List()
	for i, want := range []float64{10. / 3, 72.2} {
		if r := list[len(list)-2+i]; len(r.Peers) != 1 || math.Abs(r.Peers[0].TxMbps-want) > 0.001 || (r.HaLow != "") != (i == 0) {
			t.Errorf("radio %s: got %+v, want a rate of %g Mbit/s", r.Name, r, want)
		}
	}
}

func TestCountersOfAirtime(t *testing.T) {
	at := time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)
	m := newMeter(280, at)
	station := func(n byte, sent time.Duration) nl80211.StationInfo {
		return nl80211.StationInfo{MAC: net.HardwareAddr{2, 0, 0, 0, 0, n}, TxAirtime: sent}
	}
	stations := func(all ...nl80211.StationInfo) []nl80211.StationInfo { return all }
	survey := func(sent time.Duration) []nl80211.Survey {
		return []nl80211.Survey{{FreqMHz: 5180, InUse: true, Tx: sent}, {FreqMHz: 5200}}
	}
	const s, half = time.Second, time.Second / 2
	lost, never := unix.ENOBUFS, unix.EOPNOTSUPP
	for i, step := range []struct {
		iface    string
		surveys  []nl80211.Survey
		blind    error
		stations []nl80211.StationInfo
		deaf     error
		spent    time.Duration // in all
	}{
		{"mesh0", survey(0), nil, nil, nil, 0},
		{"mesh0", survey(2 * s), nil, stations(station(1, time.Hour)), nil, 2 * s},
		{"mesh0", survey(3 * s), nil, nil, nil, 3 * s},
		{"mesh0", survey(s), nil, nil, nil, 4 * s},                                     // began anew
		{"mesh1", nil, never, stations(station(1, s), station(2, s)), nil, 6 * s},      // no survey
		{"mesh1", nil, never, stations(station(2, 2*s)), nil, 7 * s},                   // one went
		{"mesh1", nil, never, stations(station(1, 3*s), station(2, 2*s)), nil, 10 * s}, // and is back
		{"mesh0", survey(s), nil, nil, nil, 10 * s},                                    // the other goes on
		{"mesh1", nil, nil, stations(station(1, 3*s), station(2, 2*s+half)), nil, 10*s + half},
		// What cannot be read leaves the account as it is, until it can.
		{"mesh0", nil, lost, stations(station(1, time.Hour)), nil, 10*s + half},
		{"mesh0", nil, nil, stations(station(1, time.Hour)), nil, 10*s + half}, // a survey without counters
		{"mesh0", survey(s), lost, nil, lost, 10*s + half},                     // a list that broke off
		{"mesh0", survey(2 * s), nil, stations(station(1, time.Hour)), nil, 11*s + half},
		{"mesh1", nil, never, nil, lost, 11*s + half},
		{"mesh1", nil, never, stations(station(1, 9*s)), lost, 11*s + half},
		{"mesh1", nil, never, stations(station(1, 4*s), station(2, 2*s+half)), nil, 12*s + half},
	} {
		at = at.Add(10 * time.Second)
		o := &world{surveys: step.surveys, blind: step.blind, stations: map[int][]nl80211.StationInfo{7: step.stations}, deaf: step.deaf}
		if err := m.read(at, o, nl80211.Interface{Index: 7, Name: step.iface}); (err != nil) != (step.blind == lost || step.deaf == lost) {
			t.Errorf("step %d: %v", i, err)
		}
		if got := m.account.Budget() - m.account.Left(at); got != step.spent {
			t.Errorf("step %d: spent %s, want %s", i, got, step.spent)
		}
	}
}

// TestADutyCycleThatIsUsedUp takes the radio off the air until there is airtime.
func TestADutyCycleThatIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		o.ifaces = []nl80211.Interface{{Index: 3, Name: "mesh0", Wiphy: 5, Type: nl80211.MeshPoint}}
		o.wiphys = []nl80211.Wiphy{{Index: 5, Name: "phy5"}}
		o.states = []radio.State{{Wiphy: 5, Name: "phy5", Iface: "mesh0"}, {Wiphy: 6, Name: "phy6", Iface: "mesh1"}}
		w := o.board(c)
		stop := run(t, w)
		defer stop()
		ours := func() string {
			all, err := w.Legal()
			if err != nil || len(all) == 0 || all[0].Radio != "phy5" {
				t.Fatalf("got %+v, %v", all, err)
			}
			return fmt.Sprintf("%.1f of %.1f s, %s", all[0].AirtimeS, all[0].AirtimeMaxS, strings.Join(all[0].Reasons, "; "))
		}
		time.Sleep(time.Minute)
		if got := ours(); !strings.HasPrefix(got, "0.0 of 0.0 s") || !strings.Contains(got, "has counted no airtime") {
			t.Errorf("without counters: %s", got)
		}
		sent := func(d time.Duration) {
			o.change(func() { o.surveys = []nl80211.Survey{{FreqMHz: 5180, Tx: d}} })
			time.Sleep(measureEvery)
			synctest.Wait()
		}
		sent(100 * time.Second)
		if got := ours(); !strings.HasPrefix(got, "100.0 of 100.8 s") || len(o.again) != 0 {
			t.Errorf("just within: %s, %v", got, o.again)
		}
		member := w.member()
		if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err != nil {
			t.Error(err)
		}
		sent(101 * time.Second)
		if told := o.told(EventAirtime); len(told) != 1 || told[0].Fields["driver"] != "halow chip" || !slices.Equal(o.again, []int{5}) {
			t.Errorf("beyond: %+v, joins anew %v", told, o.again)
		}
		if err := w.fit(nl80211.Wiphy{Index: 5}, &member); !errors.Is(err, legal.ErrRefused) || !strings.Contains(err.Error(), "the duty cycle of 2.8 %") {
			t.Errorf("beyond: %v", err)
		}
		time.Sleep(30 * time.Minute)
		if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err == nil {
			t.Error("let in before there is airtime")
		}
		time.Sleep(32 * time.Minute)
		if err := w.fit(nl80211.Wiphy{Index: 5}, &member); err != nil || len(o.told(EventAirtimeLeft)) != 1 || len(o.told(EventAirtime)) != 1 {
			t.Errorf("an hour later: %v, %+v", err, o.events)
		}
	})
}
