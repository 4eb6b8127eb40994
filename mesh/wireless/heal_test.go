package wireless

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
	"halo.internal/mesh/apart"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// tendedWorld is a world with one radio, whose driver is a chip.
func tendedWorld(t *testing.T) (*world, *chip, *Wireless) {
	o, c := &world{falls: make(chan string)}, newChip()
	c.wiphys, c.loaded = []nl80211.Wiphy{{Index: 6, Name: "phy6"}}, true
	o.ifaces = []nl80211.Interface{{Index: 3, Name: "mesh0", Wiphy: 6, Type: nl80211.MeshPoint, Channel: nl80211.Channel{FreqMHz: 2412}}}
	o.states = []radio.State{{Wiphy: 6, Name: "phy6", Iface: "mesh0"}}
	w := o.board(c)
	w.newHaLow = func() (halowDriver, error) { return nil, nil }
	w.newWiFi = func(string, drivers.Modules) drivers.Radio { return c }
	w.scan = func(context.Context, string, bool) ([]nl80211.BSS, error) { return nil, nil }
	return o, c, w
}

// beat has the radio's keeper look, and frames sent, as they are each 2 s.
func (o *world) beat(frames, reported uint64) {
	o.change(func() {
		v := &o.states[0].View
		v.Looked = time.Now()
		v.Reports.Sent += frames
		v.Reports.Reported += reported
	})
}

// orders returns which radios were told to join anew, and to seek peers.
func (o *world) orders() (again, sought []int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.again), slices.Clone(o.sought)
}

// TestARadioIsBroughtBackStepByStep: a wedged one is sought peers for, restarted,
// then its driver is loaded anew, and status says so.
func TestARadioIsBroughtBackStepByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c, w := tendedWorld(t)
		stop := run(t, w)
		defer stop()
		for range 60 {
			o.beat(1, 1)
			time.Sleep(2 * time.Second)
		}
		again, sought := o.orders()
		if did := c.did(); did != "" || len(again) > 0 || len(sought) < 3 || len(o.told(EventLonely)) != 1 {
			t.Fatalf("alone: driver %q, told to join anew %v, to seek %v, %d events", did, again, sought, len(o.told(EventLonely)))
		}
		rungs := ""
		for range 120 { // from now on, nothing is reported
			o.beat(1, 0)
			time.Sleep(2 * time.Second)
			if again, _ = o.orders(); len(again) > 0 && !strings.Contains(rungs, "restart") {
				rungs += "restart "
			}
			if did := c.did(); did != "" {
				rungs += did
				break
			}
		}
		if rungs != "restart unload load" {
			t.Fatalf("what was done: %s", rungs)
		}
		told := o.told(EventRestarted)
		if len(told) == 0 || told[0].Fields["evidence"] != heal.Unreported.String() || len(o.told(EventDriverRecovered)) != 1 {
			t.Errorf("events %+v", o.events)
		}
		o.change(func() {
			o.states[0].Peers = []radio.Peer{{MAC: dot11.MAC{2, 0, 0, 0, 0, 1}, Peering: peering.Estab}}
		})
		for range 10 {
			o.beat(1, 1)
			time.Sleep(2 * time.Second)
		}
		if len(o.told(EventHealed)) != 1 {
			t.Errorf("nobody says that it is well: %+v", o.events)
		}
		again, _ = o.orders()
		h := w.List()[0].Healing
		if h == nil || h.Rung != "" || h.Evidence != "" || h.Restarts != uint64(len(again)) || h.Reloads != 1 || h.Searches == 0 {
			t.Errorf("status: %+v", h)
		}
	})
}

// TestAKernelThatHangs holds nobody up, and is evidence.
func TestAKernelThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c, w := tendedWorld(t)
		o.states[0].Peers = []radio.Peer{{MAC: dot11.MAC{2, 0, 0, 0, 0, 1}, Peering: peering.Estab}}
		hung := make(chan struct{})
		dial := w.dial
		w.dial = func() (kernel, error) {
			<-hung
			return dial()
		}
		stop := run(t, w)
		defer stop()
		defer close(hung)
		o.beat(0, 0)
		time.Sleep(2 * time.Minute)
		if again, _ := o.orders(); len(again) == 0 || len(o.told(EventRestarted)) == 0 || o.told(EventRestarted)[0].Fields["evidence"] != heal.Stuck.String() {
			t.Errorf("nothing was done: %+v", o.events)
		}
		if did := c.did(); did != "" {
			t.Errorf("which driver is to blame cannot be known, and yet: %s", did)
		}
	})
}

// TestAReloadThatHangs is left to itself, once: a switch of the mesh, after which all other
// radios join anew, does not wait for it.
func TestAReloadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c, w := tendedWorld(t)
		stop := run(t, w)
		for range 60 {
			o.beat(1, 1)
			time.Sleep(2 * time.Second)
		}
		hangs := make(chan struct{})
		c.change(func() { c.hangs = hangs })
		for did := ""; did == ""; did = c.did() {
			o.beat(1, 0)
			time.Sleep(2 * time.Second)
		}
		for i := range 5 { // switches
			at := time.Now()
			stop()
			if took := time.Since(at); took > 2*apart.LetGo {
				t.Fatalf("the radios end after %s", took)
			}
			w.Change(profile)
			stop = run(t, w)
			for range 30 {
				o.beat(1, 0)
				time.Sleep(time.Minute)
			}
			o.mu.Lock()
			runs := o.runs
			o.mu.Unlock()
			if did := c.did(); runs != 2+i || did != "" {
				t.Errorf("switch %d: the radios have joined %d times, and the driver was told %q besides", i, runs, did)
			}
		}
		if told := o.told(EventDriverHangs); len(told) != 1 {
			t.Errorf("told %d times that it hangs", len(told))
		}
		c.change(func() { c.hangs = nil })
		close(hangs)
		synctest.Wait()
		did := ""
		for range 300 { // and once it lets go, it is brought back
			o.beat(1, 0)
			time.Sleep(2 * time.Second)
			did += c.did()
		}
		if !strings.Contains(did, "load") || len(o.told(EventDriverRecovered)) == 0 {
			t.Errorf("after it let go: %q", did)
		}
		stop()
	})
}

// TestAHaLowDriverThatHangs has the other radios join all the same, and is not waited for.
func TestAHaLowDriverThatHangs(t *testing.T) {
	for _, when := range []string{"unload", "load"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, c := &world{}, newChip()
				w := o.board(c)
				hangs := make(chan struct{})
				if when == "unload" {
					c.hangs = hangs
				} else {
					c.loads = errors.New("no mm6108 on sdio")
				}
				stop := run(t, w)
				if when == "load" {
					c.change(func() { c.hangs = hangs })
				}
				time.Sleep(2 * clearWait)
				for i := range 3 {
					if o.mu.Lock(); o.runs != 1+i {
						t.Errorf("run %d: the other radios have joined %d times", i, o.runs)
					}
					o.mu.Unlock()
					at := time.Now()
					stop()
					if took := time.Since(at); took > 2*apart.LetGo {
						t.Fatalf("the radios end after %s", took)
					}
					stop = run(t, w)
				}
				if did := c.did(); strings.Count(did, "hangs") != 1 {
					t.Errorf("it was sent after what hangs: %q", did)
				}
				if at := absent(w); !strings.Contains(at, errHangs.Error()) {
					t.Errorf("while it hangs: %s", at)
				}
				c.change(func() { c.hangs, c.loads = nil, nil })
				close(hangs)
				time.Sleep(time.Hour)
				if absent(w) != "" || len(o.told(EventDriverLoaded)) != 1 {
					t.Errorf("after it let go: %s, %+v", absent(w), o.events)
				}
				stop()
			})
		})
	}
}

// TestAFirstLoadThatHangs is told of once, and its radio says so.
func TestAFirstLoadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &world{}, newChip()
		w := o.board(c)
		hangs := make(chan struct{})
		c.hangsAt, c.hangs = "load", hangs
		stop := run(t, w)
		time.Sleep(2 * recoverWait)
		if told := o.told(EventDriverHangs); len(told) != 1 || told[0].Fields["driver"] != c.Name() {
			t.Errorf("told %+v", told)
		}
		if at := absent(w); at != c.Name()+": driver failed: "+errHangs.Error() {
			t.Errorf("its radio: %s", at)
		}
		if what, long := w.Hangs(); what != c.Name() || long < 2*recoverWait-time.Minute {
			t.Errorf("%s hangs for %s", what, long)
		}
		stop()
		stop = run(t, w)
		time.Sleep(2 * recoverWait)
		if n := len(o.told(EventDriverHangs)); n != 1 {
			t.Errorf("told %d times", n)
		}
		c.change(func() { c.hangs = nil })
		close(hangs)
		time.Sleep(time.Hour)
		if _, long := w.Hangs(); long != 0 || absent(w) != "" {
			t.Errorf("after it let go: %s, %s", long, absent(w))
		}
		stop()
	})
}

// TestNobodyIsSentAfterARadioThatHangs: neither for the ladder nor for status, and a change
// of the mesh is judged without it.
func TestNobodyIsSentAfterARadioThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c, w := tendedWorld(t)
		o.states = append(o.states, radio.State{Wiphy: 8, Name: "phy8", Iface: "mesh1"})
		o.states[0].Hangs, o.states[0].Detail = time.Minute, radio.ErrHangs.Error()
		hung := make(chan struct{})
		o.hungAsk = hung // whoever asks for interfaces, stations or surveys waits for the radio
		stop := run(t, w)
		for range 60 {
			at := time.Now()
			if list := w.List(); len(list) != 2 || list[0].Member || !list[1].Member {
				t.Fatalf("got %+v", list)
			}
			w.Standing()
			if _, err := w.Scan(t.Context(), model.ScanRequest{Radio: "phy6"}); !errors.Is(err, radio.ErrHangs) {
				t.Fatalf("scan: %v", err)
			}
			if _, err := w.Channels(); !errors.Is(err, radio.ErrHangs) {
				t.Fatalf("channels: %v", err)
			}
			if _, err := w.Legal(); !errors.Is(err, radio.ErrHangs) {
				t.Fatalf("legal: %v", err)
			}
			if took := time.Since(at); took > 0 {
				t.Fatalf("it took %s", took)
			}
			o.beat(1, 1)
			o.change(func() { o.states[1].View.Looked = time.Now() })
			time.Sleep(10 * time.Second)
		}
		if o.waits() != 0 {
			t.Errorf("%d wait for it", o.waits())
		}
		if what, long := w.Hangs(); what != "radio phy6" || long != time.Minute {
			t.Errorf("%s hangs for %s", what, long)
		}
		if did := c.did(); !strings.Contains(did, "unload load") {
			t.Errorf("its driver: %q", did)
		}
		stop()
		close(hung)
	})
}

// TestAKernelThatHangsKeepsNobody waiting: status, a change of the mesh, the end of a run.
func TestAKernelThatHangsKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, _, w := tendedWorld(t)
		hung := make(chan struct{})
		dial := w.dial
		w.dial = func() (kernel, error) { <-hung; return dial() }
		w.setCountry = func(context.Context, string, time.Duration) error { <-hung; return nil }
		w.scan = func(context.Context, string, bool) ([]nl80211.BSS, error) { <-hung; return nil, nil }
		took := func(what string, most time.Duration, f func()) {
			t.Helper()
			at := time.Now()
			if f(); time.Since(at) > most {
				t.Errorf("%s took %s", what, time.Since(at))
			}
		}
		for i := range 3 {
			stop := run(t, w)
			time.Sleep(3 * time.Minute)
			took("list", tellWait, func() { w.List() })
			took("list again", 0, func() { w.List() })
			took("permit", 2*(answerWait+apart.LetGo), func() {
				if err := w.Permit(profile); err != nil {
					t.Errorf("what holds already: %v", err)
				}
				m := profile
				m.Channel = 36
				if err := w.Permit(m); err == nil || !strings.Contains(err.Error(), "a driver hangs") {
					t.Errorf("channel 36: %v", err)
				}
			})
			took("the end", 2*apart.LetGo, stop)
			if o.mu.Lock(); o.runs != i+1 {
				t.Errorf("run %d: the radios have joined %d times", i, o.runs)
			}
			o.mu.Unlock()
		}
		if what, long := w.Hangs(); long < 5*time.Minute {
			t.Errorf("%s hangs for %s", what, long)
		}
		close(hung)
		synctest.Wait()
		if what, long := w.Hangs(); long != 0 {
			t.Errorf("%s hangs for %s", what, long)
		}
	})
}

// twins is a world with two radios of one driver, on devices that are there.
func twins(t *testing.T) (*world, *chip, *Wireless, func(name string)) {
	o, c, w := tendedWorld(t)
	c.wiphys = append(c.wiphys, nl80211.Wiphy{Index: 8, Name: "phy8"})
	o.states = append(o.states, radio.State{Wiphy: 8, Name: "phy8", Iface: "mesh1", Peers: []radio.Peer{{MAC: dot11.MAC{2, 0, 0, 0, 0, 1}, Peering: peering.Estab}}})
	sys := t.TempDir()
	o.sysfs = nil
	for i, name := range []string{"1-1:1.0", "1-2:1.0"} {
		dir := filepath.Join(sys, "bus/usb/devices", name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "modalias"), []byte("usb:v0CF3p9271\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		o.sysfs = append(o.sysfs, wifi.Radio{Index: 6 + 2*i, Name: fmt.Sprintf("phy%d", 6+2*i), Module: "ath9k_htc", Device: module.Device{Sys: sys, Bus: "usb", Name: name}})
	}
	unplug := func(name string) {
		if err := os.RemoveAll(filepath.Join(sys, "bus/usb/devices", name)); err != nil {
			t.Fatal(err)
		}
	}
	return o, c, w, unplug
}

// TestOneOfTwoRadiosHangs: its device is given to the driver anew, which is not loaded anew
// while the other works, whether it does not answer or has vanished, also over a switch of
// the mesh.
func TestOneOfTwoRadiosHangs(t *testing.T) {
	for _, how := range []string{"hangs", "vanished", "vanished before a switch", "unplugged"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, c, w, unplug := twins(t)
				back := o.sysfs[0]
				var mu sync.Mutex
				var given []string
				w.giveBack = func(s seat, whole bool) error {
					mu.Lock()
					defer mu.Unlock()
					given = append(given, fmt.Sprint(s, " ", whole))
					if len(given) > 1 { // the first does not help
						o.change(func() {
							o.sysfs = append(o.sysfs[len(o.sysfs)-1:], back)
							o.states[0].Hangs, o.states[0].Detail = 0, ""
						})
						c.change(func() { c.wiphys = []nl80211.Wiphy{{Index: 6}, {Index: 8}} })
					}
					return nil
				}
				stop := run(t, w)
				beats := func(n int) {
					for range n {
						o.change(func() {
							for i := range o.states {
								if o.states[i].Hangs == 0 {
									o.states[i].View.Looked = time.Now()
								} else {
									o.states[i].Hangs += 2 * time.Second
								}
							}
						})
						time.Sleep(2 * time.Second)
					}
				}
				beats(30)
				gone := func() {
					o.change(func() { o.sysfs = o.sysfs[1:]; o.states = o.states[1:] })
					c.change(func() { c.wiphys = c.wiphys[1:] })
				}
				switch how {
				case "hangs":
					o.change(func() { o.states[0].Hangs, o.states[0].Detail = time.Second, radio.ErrHangs.Error() })
				case "unplugged":
					unplug("1-1:1.0")
					gone()
				default:
					gone()
				}
				if how == "vanished before a switch" {
					stop()
					stop = run(t, w)
				}
				beats(300)
				stop()
				want := []string{"usb 1-1:1.0 false", "usb 1-1:1.0 true"}
				if how == "unplugged" {
					want = nil
				}
				if !slices.Equal(given, want) {
					t.Errorf("given back %q, want %q", given, want)
				}
				if did := c.did(); did != "" {
					t.Errorf("the driver: %s", did)
				}
				recovered, failed := o.told(EventDriverRecovered), o.told(EventDriverFailed)
				if how == "unplugged" {
					if len(recovered)+len(failed) != 0 {
						t.Errorf("told %+v %+v", recovered, failed)
					}
					return
				}
				if n := len(recovered); n == 0 || recovered[n-1].Fields["step"] != "rebound" || recovered[n-1].Fields["device"] != "usb 1-1:1.0" {
					t.Errorf("told %+v, failed %+v", recovered, failed)
				}
				if wantFailed := 1; how != "hangs" && len(failed) != wantFailed {
					t.Errorf("failed %+v", failed)
				}
			})
		})
	}
}

// TestTheOnlyRadioHangs: its device is given to the driver anew before that is unloaded,
// which would begin with what hangs.
func TestTheOnlyRadioHangs(t *testing.T) {
	for _, helps := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o, c, w, _ := twins(t)
			o.sysfs, o.states, c.wiphys = o.sysfs[:1], o.states[:1], c.wiphys[:1]
			var given []string
			w.giveBack = func(s seat, whole bool) error {
				given = append(given, fmt.Sprint(s, " ", whole))
				if !helps {
					return errors.New("no such driver")
				}
				o.change(func() { o.states[0].Hangs, o.states[0].Detail = 0, "" })
				return nil
			}
			stop := run(t, w)
			o.change(func() { o.states[0].Hangs, o.states[0].Detail = time.Second, radio.ErrHangs.Error() })
			for range 100 {
				o.beat(0, 0)
				time.Sleep(2 * time.Second)
			}
			stop()
			told := o.told(EventDriverRecovered)
			if len(given) != 1 || given[0] != "usb 1-1:1.0 true" || len(told) != 1 {
				t.Fatalf("given back %q, told %+v", given, told)
			}
			if step, did := told[0].Fields["step"], c.did(); helps && (step != "rebound" || did != "") || !helps && (step != "reloaded" || did != "unload load") {
				t.Errorf("helps %v: %s, the driver %q", helps, step, did)
			}
		})
	}
}

// TestALookTakesSeveralPasses: who is on another channel may miss what is asked, and is
// heard by its beacons then, in one of several passes.
func TestALookTakesSeveralPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, _, w := tendedWorld(t)
		w.c.Alone = func() bool { return true }
		var listened []bool
		w.scan = func(_ context.Context, iface string, listen bool) ([]nl80211.BSS, error) {
			listened = append(listened, listen)
			if len(listened) < len(passes)+3 {
				return nil, nil
			}
			return []nl80211.BSS{{BSSID: net.HardwareAddr{2, 0, 0, 0, 1, 1}, FreqMHz: 2437, IEs: dot11.AppendElement(nil, dot11.MeshID, []byte("valley"))}}, nil
		}
		stop := run(t, w)
		defer stop()
		for len(o.told(EventElsewhere)) == 0 {
			o.beat(1, 1)
			time.Sleep(time.Second)
		}
		if want := append(slices.Clone(passes), passes[:3]...); !slices.Equal(listened, want) {
			t.Errorf("scans that listen: %v, want %v", listened, want)
		}
	})
}

// TestTheMeshOnAnotherChannel is told of and handed on, with bounds.
func TestTheMeshOnAnotherChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, _, w := tendedWorld(t)
		heard := func(n byte, mhz int, id string) nl80211.BSS {
			return nl80211.BSS{BSSID: net.HardwareAddr{2, 0, 0, 0, 1, n}, FreqMHz: mhz, SignalMBm: -5000 - int(n), IEs: dot11.AppendElement(nil, dot11.MeshID, []byte(id))}
		}
		all := []nl80211.BSS{heard(1, 2412, "valley"), heard(3, 2462, "hill"), heard(4, 5180, "valley")}
		for n := range byte(20) {
			all = append(all, heard(10+n, 5180, "valley"))
		}
		all = append(all, heard(99, 2437, "valley")) // all others are stronger
		scans := 0
		w.scan = func(_ context.Context, iface string, _ bool) ([]nl80211.BSS, error) {
			scans++
			if scans == 1 {
				return nil, errors.New("given up by the driver")
			}
			return all, nil
		}
		var found []model.RadioNetwork
		w.c.Found = func(name string, n model.RadioNetwork) {
			if name != "phy6" {
				t.Errorf("by radio %s", name)
			}
			o.change(func() { found = append(found, n) })
		}
		alone := true
		w.c.Alone = func() bool { o.mu.Lock(); defer o.mu.Unlock(); return alone }
		stop := run(t, w)
		defer stop()
		for range 90 {
			o.beat(1, 1)
			time.Sleep(2 * time.Second)
		}
		if scans < 3 || scans > 5 || len(found) != (scans-1)*2 || found[0].FreqMHz != 5180 || found[0].BSSID != "02:00:00:00:01:04" || found[1].FreqMHz != 2437 || found[1].Channel != 6 {
			t.Errorf("%d scans, found %+v", scans, found)
		}
		if slices.ContainsFunc(found, func(n model.RadioNetwork) bool { return !n.Own || n.FreqMHz == 2412 }) {
			t.Errorf("what is not elsewhere was handed on: %+v", found)
		}
		if told := o.told(EventElsewhere); len(told) != 2 || told[0].Fields["channel"] != "36" || told[1].Fields["channel"] != "6" || told[1].Fields["freq_mhz"] != "2437" {
			t.Errorf("told of %+v", told)
		}
		before := scans
		o.change(func() { alone = false }) // a cable
		for range 90 {
			o.beat(1, 1)
			time.Sleep(2 * time.Second)
		}
		if scans != before {
			t.Errorf("%d more scans with a peer by cable", scans-before)
		}
	})
}

// TestTheMeshOnAnotherS1GChannel is handed on by its number below 1 GHz, also where it
// has the control channel of this radio's; and what no S1G channel stands behind is not.
func TestTheMeshOnAnotherS1GChannel(t *testing.T) {
	o, c := &world{}, newChip()
	w := o.board(c)
	m := profile
	m.HaLowChannel = 44
	w.c.Country = "US"
	w.Change(m)
	o.states = []radio.State{{Wiphy: 5, Name: "phy5", Iface: "mesh0"}}
	o.ifaces = []nl80211.Interface{{Name: "mesh0", Wiphy: 5, Channel: nl80211.Channel{FreqMHz: 5805}}}
	heard := func(mhz int, centre byte) nl80211.BSS {
		ies := dot11.AppendElement(nil, dot11.MeshID, []byte("valley"))
		return nl80211.BSS{FreqMHz: mhz, IEs: dot11.AppendElement(ies, dot11.VHTOperation, []byte{0, centre, 0, 0, 0})}
	}
	w.scan = func(context.Context, string, bool) ([]nl80211.BSS, error) {
		return []nl80211.BSS{heard(5805, 163), heard(5805, 161), heard(5805, 0), heard(5560, 114), heard(5700, 0)}, nil
	}
	var found [][]int
	w.c.Found = func(_ string, n model.RadioNetwork) { found = append(found, n.S1G) }
	w.lookElsewhere(t.Context(), "phy5")
	if len(found) != 2 || !slices.Contains(found[0], 43) && !slices.Contains(found[1], 43) || !slices.Contains(found[0], 28) && !slices.Contains(found[1], 28) {
		t.Errorf("found %v, want channels 43 and 28", found)
	}
	told := o.told(EventElsewhere)
	if len(told) != 2 || !strings.Contains(told[0].Message+told[1].Message, "channel S1G 28 (5560 MHz)") {
		t.Errorf("told of %+v", told)
	}
}

// TestFirmwareThatCrashes is told of, by its device, and restarted if it does not
// come back by itself.
func TestFirmwareThatCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c, w := tendedWorld(t)
		stop := run(t, w)
		defer stop()
		o.beat(0, 0)
		time.Sleep(25 * time.Second)
		o.falls <- "mmc2:0001:1" // not a radio's
		o.falls <- "1-1:1.0"
		for range 60 {
			o.beat(1, 1)
			time.Sleep(2 * time.Second)
		}
		if told := o.told(EventCrashed); len(told) != 1 || told[0].Fields["device"] != "usb 1-1:1.0" {
			t.Errorf("told of %+v", told)
		}
		if told := o.told(EventRestarted); len(told) != 1 || told[0].Fields["evidence"] != heal.Crashed.String() || c.did() != "" {
			t.Errorf("restarted %+v", told)
		}
	})
}

func TestDumped(t *testing.T) {
	sys := t.TempDir()
	dir := filepath.Join(sys, "devices/virtual/devcoredump/devcd1")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("../../../usb/1-1/1-1:1.0", filepath.Join(dir, "failing_device"))); err != nil {
		t.Fatal(err)
	}
	e := func(action, subsystem, path string) uevent.Event {
		return uevent.Event{"ACTION": action, "SUBSYSTEM": subsystem, "DEVPATH": path}
	}
	for want, in := range map[string]uevent.Event{
		"1-1:1.0": e("add", "devcoredump", "/devices/virtual/devcoredump/devcd1"),
		"":        e("add", "devcoredump", "/devices/virtual/devcoredump/devcd2"),
	} {
		if got := dumped(sys, in); got != want {
			t.Errorf("%v: got %q, want %q", in, got, want)
		}
	}
	for _, in := range []uevent.Event{e("remove", "devcoredump", "/devices/virtual/devcoredump/devcd1"), e("add", "usb", "/devices/virtual/devcoredump/devcd1"), {}} {
		if got := dumped(sys, in); got != "" {
			t.Errorf("%v: got %q", in, got)
		}
	}
}

// TestWhatIsSeenOfARadio as the ladder gets it.
func TestWhatIsSeenOfARadio(t *testing.T) {
	o, c, w := tendedWorld(t)
	peer := dot11.MAC{2, 0, 0, 0, 0, 1}
	o.states[0].Peers = []radio.Peer{{MAC: peer, Peering: peering.Estab}, {MAC: dot11.MAC{2, 0, 0, 0, 0, 2}, Peering: peering.OpnSnt}}
	o.states[0].View = radio.View{Looked: time.Now(), Heard: 3, Reports: radio.Reports{Sent: 7, Reported: 6}}
	o.states = append(o.states, radio.State{Wiphy: 7, Name: "phy7", Detail: "in use"}, radio.State{Wiphy: 8, Name: "phy8", Iface: "mesh1", Detail: "refused: law", Refused: true})
	o.stations = map[int][]nl80211.StationInfo{3: {{MAC: peer[:], TxPackets: 40, TxFailed: 2, Inactive: time.Second}}}
	o.surveys = []nl80211.Survey{{FreqMHz: 2437, Time: time.Hour}, {FreqMHz: 2412, InUse: true, Time: time.Minute, Tx: time.Second}}
	w.c.Routed = func() (map[string]bool, error) { return map[string]bool{"mesh0": true}, nil }
	w.tendWiFi()
	seen, wiphys := w.observe(t.Context())
	r := seen.Radios[0]
	if len(seen.Radios) != 3 || r.ID != "usb 1-1:1.0" || wiphys[r.ID] != 6 || r.Driver != c.Name() || !r.Member || r.Use != heal.Ours || r.Heard != 3 || r.Sent != 7 || r.Reported != 6 ||
		r.Survey != (heal.Survey{Time: time.Minute, Tx: time.Second}) || !r.Routed || len(r.Stations) != 1 || r.Stations[0].TxPackets != 40 || r.Stations[0].TxFailed != 2 {
		t.Errorf("got %+v", r)
	}
	if seen.Radios[1].Use != heal.Spared || seen.Radios[2].Use != heal.Spared || seen.Radios[2].Routed || !seen.Alone {
		t.Errorf("got %+v", seen)
	}
	o.sysfs = []wifi.Radio{{Index: 6, Name: "phy6", Module: w.halowModule, Device: module.Device{Bus: "sdio", Name: "mmc1:0001:1"}}}
	w.meter = newMeter(280, time.Now())
	w.tendWiFi()
	if seen, _ = w.observe(t.Context()); seen.Radios[0].Sent != 0 || seen.Radios[0].Survey.Tx != 0 || seen.Radios[0].Survey.Time == 0 {
		t.Errorf("of a radio with a duty cycle: %+v", seen.Radios[0])
	}
}
