package wireless

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
)

// world is a kernel and its radios.
type world struct {
	kernel
	mu       sync.Mutex // guards what follows
	absent   bool       // there is no cfg80211
	wiphys   []nl80211.Wiphy
	ifaces   []nl80211.Interface
	stations map[int][]nl80211.StationInfo
	surveys  []nl80211.Survey
	blind    error // of reading surveys
	deaf     error // of listing stations
	rules    nl80211.Regulatory
	up       map[int]bool
	states   []radio.State
	country  error // of setting it
	fails    error // of following the radios
	runs     int
	asked    radio.RadiosConfig
	events   []model.Event
	again    []int         // told to join anew
	sought   []int         // told to seek peers
	sysfs    []wifi.Radio  //
	falls    chan string   // devices whose firmware crashes
	hungAsk  chan struct{} // for which whoever asks for interfaces and what they count waits; nil: nobody does
	waiting  int
}

// hang waits for hungAsk.
func (o *world) hang() {
	o.mu.Lock()
	hung := o.hungAsk
	if hung != nil {
		o.waiting++
	}
	o.mu.Unlock()
	if hung != nil {
		<-hung
	}
}

func (o *world) waits() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting
}

func (o *world) Wiphys() ([]nl80211.Wiphy, error)         { return o.wiphys, nil }
func (o *world) Interfaces() ([]nl80211.Interface, error) { o.hang(); return o.ifaces, nil }
func (o *world) InterfacesOf(wiphy int) (all []nl80211.Interface, err error) {
	for _, i := range o.ifaces {
		if i.Wiphy == wiphy {
			all = append(all, i)
		}
	}
	return all, nil
}
func (o *world) Stations(i int) ([]nl80211.StationInfo, error) {
	o.hang()
	return o.stations[i], o.deaf
}
func (o *world) Surveys(int) ([]nl80211.Survey, error) {
	o.hang()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.surveys, o.blind
}
func (o *world) WiphyRegulatory(int) (nl80211.Regulatory, error) { return o.rules, nil }
func (o *world) Close() error                                    { return nil }
func (o *world) Say(string, dot11.MAC, []byte)                   {}
func (o *world) Again(wiphy int)                                 { o.change(func() { o.again = append(o.again, wiphy) }) }
func (o *world) Seek(wiphy int)                                  { o.change(func() { o.sought = append(o.sought, wiphy) }) }
func (o *world) List() []radio.State {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.states)
}
func (o *world) notify(e model.Event) { o.mu.Lock(); o.events = append(o.events, e); o.mu.Unlock() }
func (o *world) setCountry(context.Context, string, time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.absent {
		return fmt.Errorf("no cfg80211: %w", fs.ErrNotExist)
	}
	return o.country
}

func (o *world) Run(ctx context.Context) error {
	o.mu.Lock()
	o.runs++
	err := o.fails
	o.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// fall has firmware crash, as the channel says.
func (o *world) fall(ctx context.Context, told func(string)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case device := <-o.falls:
			told(device)
		}
	}
}

func (o *world) told(kind string) (list []model.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.events {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

func (o *world) change(f func()) { o.mu.Lock(); defer o.mu.Unlock(); f() }

// with returns radios in a world.
func (o *world) with(m bundle.Mesh) *Wireless {
	w := New(Config{Country: "DE", Mesh: m, Notify: o.notify, Log: slog.New(slog.DiscardHandler)})
	w.dial = func() (kernel, error) { return o, nil }
	w.setCountry = o.setCountry
	w.newRadios = func(c radio.RadiosConfig) radios { o.asked = c; return o }
	w.sysfs = func() ([]wifi.Radio, error) { o.mu.Lock(); defer o.mu.Unlock(); return slices.Clone(o.sysfs), nil }
	w.modules = func() (drivers.Modules, error) { return nil, nil }
	w.isUp = func(i int) bool { return o.up[i] }
	w.crashes = func(ctx context.Context, told func(string)) error { return o.fall(ctx, told) }
	w.set(o)
	return w
}

var profile = bundle.Mesh{SSID: "valley", PSK: "correct horse battery", Routing: "BATMAN_IV"}

func TestWhatTheProfileMakesOfARadio(t *testing.T) {
	o := &world{}
	c := o.with(profile).member()
	if c.MeshID != "valley" || c.Password != profile.PSK || c.Channel != (nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}) ||
		c.MFP != peering.MFPRequired || c.Method != sae.HashToElement || c.BeaconInterval != 1000 {
		t.Errorf("by default: got %+v", c)
	}
	m := profile
	m.Channel, m.Width, m.MFP, m.SAE, m.BeaconInterval = 40, 40, bundle.MFPOptional, bundle.HuntingAndPecking, 100
	c = o.with(m).member()
	if c.Channel != (nl80211.Channel{FreqMHz: 5200, Width: nl80211.Width40, Center1MHz: 5190}) || c.MFP != peering.MFPOptional || c.Method != sae.HuntingAndPecking || c.BeaconInterval != 100 {
		t.Errorf("as set: got %+v", c)
	}
	m.MFP = bundle.MFPOff
	if c = o.with(m).member(); c.MFP != peering.MFPOff {
		t.Errorf("without MFP: got %v", c.MFP)
	}
}

// TestADeviceWithoutRadios is quiet, and uses them once there are any.
func TestADeviceWithoutRadios(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &world{absent: true}
		w := o.with(profile)
		w.set(nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(o.events) != 0 || o.runs != 0 || len(w.List()) != 0 {
			t.Errorf("after an hour without radios: %d events, %+v", len(o.events), w.List())
		}
		if _, err := w.Scan(ctx, model.ScanRequest{}); !errors.Is(err, ErrNoRadio) {
			t.Errorf("scan: %v", err)
		}
		o.change(func() { o.absent = false; o.states = []radio.State{{Name: "phy0", Iface: "mesh0"}} })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if o.runs != 1 || len(w.List()) != 1 || !w.List()[0].Member {
			t.Errorf("with a radio: %d runs, %+v", o.runs, w.List())
		}
		cancel()
		<-done
		if len(w.List()) != 0 {
			t.Error("radios are listed that nobody follows")
		}
	})
}

func TestFailuresAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &world{fails: errors.New("netlink is full")}
		w := o.with(profile)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		time.Sleep(time.Hour)
		if n := len(o.told(EventFailed)); n != 1 {
			t.Errorf("%d events of one failure", n)
		}
		o.change(func() { o.fails = errors.New("another") })
		time.Sleep(time.Minute)
		if n := len(o.told(EventFailed)); n != 2 {
			t.Errorf("%d events of two failures", n)
		}
		cancel()
		<-done
	})
}

// TestACountryThatTheKernelDoesNotHave is told of, and the mesh goes on by the
// rules there are.
func TestACountryThatTheKernelDoesNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &world{country: fmt.Errorf("%w (00)", radio.ErrCountry)}
		w := o.with(profile)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		synctest.Wait()
		if told := o.told(EventCountry); len(told) != 1 || told[0].Fields["country"] != "DE" || o.runs != 1 {
			t.Errorf("got %+v, %d runs", told, o.runs)
		}
		cancel()
		<-done
	})
}

func TestRadiosOfOthersAreLeftAlone(t *testing.T) {
	iface := func(name string, wiphy int, kind nl80211.InterfaceType) nl80211.Interface {
		return nl80211.Interface{Index: 7, Name: name, Wiphy: wiphy, Type: kind}
	}
	for name, tc := range map[string]struct {
		ifaces []nl80211.Interface
		up     bool
		want   string // part of the reason; empty: the mesh may have it
	}{
		"nothing on it":          {nil, false, ""},
		"idle":                   {[]nl80211.Interface{iface("wlan0", 0, nl80211.Station)}, false, ""},
		"a hotspot":              {[]nl80211.Interface{iface("wlan0", 0, nl80211.AP)}, false, "wlan0 is an access point"},
		"a client of something":  {[]nl80211.Interface{iface("wlan0", 0, nl80211.Station)}, true, "wlan0 is up on it (managed)"},
		"another's mesh":         {[]nl80211.Interface{iface("mesh-x", 0, nl80211.MeshPoint)}, true, "mesh-x is up"},
		"ours, of before":        {[]nl80211.Interface{iface("mesh0", 0, nl80211.MeshPoint)}, true, ""},
		"a capture":              {[]nl80211.Interface{iface("halo-capture", 0, nl80211.Monitor)}, true, ""},
		"a hotspot on another":   {[]nl80211.Interface{iface("wlan0", 1, nl80211.AP)}, true, ""},
		"a name that seems ours": {[]nl80211.Interface{iface("mesh", 0, nl80211.MeshPoint)}, true, "mesh is up"},
	} {
		t.Run(name, func(t *testing.T) {
			o := &world{ifaces: tc.ifaces, up: map[int]bool{7: tc.up}}
			err := o.with(profile).use(nl80211.Wiphy{Index: 0, Name: "phy0"})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	since := time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)
	o := &world{
		rules:  nl80211.Regulatory{Country: "DE"},
		ifaces: []nl80211.Interface{{Index: 3, Name: "mesh0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Channel: nl80211.Channel{FreqMHz: 5180, Width: nl80211.Width20}, TxPowerMBm: 2000}},
		stations: map[int][]nl80211.StationInfo{3: {{MAC: mac, Inactive: 40 * time.Millisecond, TxBytes: 7, RxBytes: 8, TxPackets: 9, TxFailed: 1, TxRetries: 2, ExpectedThroughput: 4500,
			TxRate: nl80211.Rate{Bitrate: 65}, RxRate: nl80211.Rate{Bitrate: 60}}}},
		states: []radio.State{
			{Name: "phy0", Iface: "mesh0", Peers: []radio.Peer{
				{MAC: dot11.MAC(mac), SAE: sae.Authenticated, Peering: peering.Estab, Since: since, SignalDBm: -51.5},
				{MAC: dot11.MAC{2, 0, 0, 0, 0, 2}, Failures: 3, Reason: "wrong password"}},
				Dropped: radio.Dropped{
					SAE:        sae.Stats{Malformed: 1, Reflected: 2, Replayed: 4, Unverified: 8, OtherMethod: 16, OtherGroup: 32, TokensAsked: 64, OverCapacity: 128},
					Peering:    peering.Stats{Malformed: 256, Unverified: 512, UnknownKey: 1024, Replayed: 2048, Mismatched: 4096},
					CrowdedOut: 8192,
				}},
			{Wiphy: 1, Name: "phy1", Detail: "it is in use"},
		},
	}
	got := o.with(profile).List()
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	a, b := got[0], got[1]
	if !a.Member || a.MAC != "02:00:00:00:00:09" || a.Channel != 36 || a.FreqMHz != 5180 || a.WidthMHz != 20 || a.Country != "DE" || a.TxPowerDBm != 20 || len(a.Peers) != 2 || a.Linked() != 1 {
		t.Errorf("got %+v", a)
	}
	if p := a.Peers[0]; !p.Linked || p.SAE != "Accepted" || p.Peering != "ESTAB" || p.Since == nil || !p.Since.Equal(since) || p.InactiveMS != 40 || p.TxMbps != 6.5 || p.RxMbps != 6 || p.TxBytes != 7 || p.TxPackets != 9 || p.TxFailed != 1 || p.Expected != 4.5 || p.SignalDBm != -51.5 {
		t.Errorf("got %+v", p)
	}
	if p := a.Peers[1]; p.Linked || p.Since != nil || p.Failures != 3 || p.Reason != "wrong password" {
		t.Errorf("got %+v", p)
	}
	if want := (model.Dropped{
		Malformed: 257, SAEUnverified: 8, SAEReplayed: 6, SAEMismatched: 48, SAEOverCapacity: 192,
		PeeringUnverified: 512, PeeringUnknownKey: 1024, PeeringReplayed: 2048, PeeringMismatched: 4096, CrowdedOut: 8192,
	}); a.Dropped != want {
		t.Errorf("dropped: got %+v, want %+v", a.Dropped, want)
	}
	if b.Dropped != (model.Dropped{}) {
		t.Errorf("dropped: got %+v", b.Dropped)
	}
	if b.Member || b.Detail != "it is in use" || b.Iface != "" || b.Peers == nil {
		t.Errorf("got %+v", b)
	}
}

func TestWhichRadioIsMeant(t *testing.T) {
	one := radio.State{Name: "phy0", Iface: "mesh0"}
	two := radio.State{Name: "phy1", Iface: "mesh1", Wiphy: 1}
	taken := radio.State{Name: "phy2", Wiphy: 2, Detail: "it is in use"}
	for _, tc := range []struct {
		have []radio.State
		ask  string
		want string
		err  error
	}{
		{nil, "", "", ErrNoRadio},
		{nil, "phy0", "", ErrNoRadio},
		{[]radio.State{one}, "", "phy0", nil},
		{[]radio.State{one, taken}, "", "phy0", nil},
		{[]radio.State{one, two}, "", "", ErrInvalid},
		{[]radio.State{one, two}, "phy1", "phy1", nil},
		{[]radio.State{one, two}, "mesh0", "phy0", nil},
		{[]radio.State{one, two}, "phy3", "", ErrNoRadio},
		{[]radio.State{one, taken}, "phy2", "", ErrNoRadio},
	} {
		o := &world{states: tc.have}
		got, err := o.with(profile).find(tc.ask)
		if got.Name != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%q of %v: got %s, %v", tc.ask, tc.have, got.Name, err)
		}
	}
}

func TestScan(t *testing.T) {
	bss := func(n byte, dBm, capability int, ies ...byte) nl80211.BSS {
		return nl80211.BSS{BSSID: net.HardwareAddr{2, 0, 0, 0, 0, n}, FreqMHz: 2437, SignalMBm: 100 * dBm, Capability: uint16(capability), IEs: ies, Seen: 2 * time.Second}
	}
	element := func(id byte, text string) []byte { return append([]byte{id, byte(len(text))}, text...) }
	join := func(all ...[]byte) []byte { return bytes.Join(all, nil) }
	o := &world{states: []radio.State{{Name: "phy0", Iface: "mesh0"}}}
	w := o.with(profile)
	w.scan = func(_ context.Context, iface string, _ bool) ([]nl80211.BSS, error) {
		if iface != "mesh0" {
			return nil, unix.ENODEV
		}
		return []nl80211.BSS{
			bss(1, -80, 1|1<<4, element(0, "a café\x1b[31m")...),
			bss(2, -40, 0, join(element(0, ""), element(48, "\x01\x00"), element(114, "valley"))...),
			bss(3, -60, 0, join(element(0, ""), element(114, "other"))...),
			bss(4, -70, 2, element(0, "\x00\x00\xff")...),
			bss(5, -90, 1, 0, 200, 1), // cut short
		}, nil
	}
	got, err := w.Scan(t.Context(), model.ScanRequest{Radio: "phy0"})
	if err != nil || got.Radio != "phy0" || len(got.Networks) != 5 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i, want := range []model.RadioNetwork{
		{BSSID: "02:00:00:00:00:02", Kind: "mesh", Name: "valley", Own: true, Secured: true, SignalDBm: -40},
		{BSSID: "02:00:00:00:00:03", Kind: "mesh", Name: "other", SignalDBm: -60},
		{BSSID: "02:00:00:00:00:04", Kind: "ad hoc", Name: "\ufffd", SignalDBm: -70},
		{BSSID: "02:00:00:00:00:01", Kind: "access point", Name: "a café\x1b[31m", Secured: true, SignalDBm: -80},
		{BSSID: "02:00:00:00:00:05", Kind: "access point", SignalDBm: -90},
	} {
		want.FreqMHz, want.Channel, want.SeenMS = 2437, 6, 2000
		if !reflect.DeepEqual(got.Networks[i], want) {
			t.Errorf("got %+v\nwant %+v", got.Networks[i], want)
		}
	}
	w.scan = func(context.Context, string, bool) ([]nl80211.BSS, error) { return make([]nl80211.BSS, 1000), nil }
	if got, err := w.Scan(t.Context(), model.ScanRequest{}); err != nil || len(got.Networks) != maxNetworks {
		t.Errorf("of a thousand networks: %d, %v", len(got.Networks), err)
	}
}

// TestAScanShowsAllChannels, however many stations somebody forges on one.
func TestAScanShowsAllChannels(t *testing.T) {
	var heard []nl80211.BSS
	mesh := func(n, mhz, dBm int, id string) {
		heard = append(heard, nl80211.BSS{
			BSSID: net.HardwareAddr{2, 0, 0, 1, byte(n >> 8), byte(n)}, FreqMHz: mhz, SignalMBm: 100 * dBm, IEs: dot11.AppendElement(nil, dot11.MeshID, []byte(id)),
		})
	}
	for n := range 900 {
		mesh(n, 2437, -20, []string{"valley", "hill"}[n%2])
	}
	mesh(1000, 2412, -90, "valley")
	mesh(1001, 2412, -91, "hill")
	mesh(1002, 2437, -60, "valley")
	list := kept(heard, "valley")
	if len(list) != maxNetworks {
		t.Errorf("got %d networks, want %d", len(list), maxNetworks)
	}
	if n := len(list); list[n-1].net.FreqMHz != 2412 || list[n-2].net.FreqMHz != 2412 || !list[n-2].net.Own {
		t.Errorf("the last are %+v and %+v, want those of the other channel", list[n-2].net, list[n-1].net)
	}
	if !slices.IsSortedFunc(list, func(a, b heardNetwork) int { return cmp.Compare(b.net.SignalDBm, a.net.SignalDBm) }) {
		t.Error("they are not in the order of their signals")
	}
	for _, h := range list {
		if h.net.BSSID != h.bss.BSSID.String() {
			t.Fatalf("%s was heard as %s", h.net.BSSID, h.bss.BSSID)
		}
	}
}

// TestAScanByHaLow tells which S1G channels those of 5 GHz may stand for: by what Morse's
// driver makes of the beacon, and where that says nothing, all whose control channel it is.
func TestAScanByHaLow(t *testing.T) {
	bss := func(mhz int, vht ...byte) nl80211.BSS {
		ies := dot11.AppendElement(nil, dot11.MeshID, []byte("valley"))
		if vht != nil {
			ies = dot11.AppendElement(ies, dot11.VHTOperation, vht)
		}
		return nl80211.BSS{BSSID: net.HardwareAddr{2, 0, 0, 0, 0, 1}, FreqMHz: mhz, IEs: ies}
	}
	for name, tc := range map[string]struct {
		country string
		channel int
		scheme  string
		wiphy   int
		heard   nl80211.BSS
		want    []int
	}{
		"8 MHz, as told":          {"US", 44, "", 5, bss(5805, 2, 163, 0, 0, 0), []int{44}},
		"1 MHz, as told":          {"US", 44, "", 5, bss(5805, 0, 161, 0, 0, 0), []int{43}},
		"not told, from 8 MHz":    {"US", 28, "", 5, bss(5805), []int{44, 43}},
		"not told, from 1 MHz":    {"US", 1, "", 5, bss(5805), []int{43, 44}},
		"cut short":               {"US", 1, "", 5, bss(5805, 2), []int{43, 44}},
		"in Europe":               {"DE", 1, "", 5, bss(5200), []int{7}},
		"none there":              {"DE", 1, "", 5, bss(5805), nil},
		"by the mesh's numbering": {"AU", 43, "802.11-REVmf", 5, bss(5785, 1, 155, 0, 0, 0), []int{51}},
		"no country":              {"", 44, "", 5, bss(5805), nil},
		"by a Wi-Fi radio":        {"US", 44, "", 7, bss(5805, 2, 163, 0, 0, 0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			o, c := &world{}, newChip()
			w := o.board(c)
			m := profile
			m.HaLowChannel, m.HaLowScheme = tc.channel, tc.scheme
			w.c.Country = tc.country
			w.Change(m)
			o.states = []radio.State{{Wiphy: tc.wiphy, Name: "phy", Iface: "mesh0"}}
			w.scan = func(context.Context, string, bool) ([]nl80211.BSS, error) { return []nl80211.BSS{tc.heard}, nil }
			got, err := w.Scan(t.Context(), model.ScanRequest{})
			if err != nil || len(got.Networks) != 1 || !slices.Equal(got.Networks[0].S1G, tc.want) {
				t.Errorf("got %+v, %v, want %v", got, err, tc.want)
			}
		})
	}
}

func FuzzNetworkOf(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 114, 2, 'a', 0xff, 48, 0}, uint16(0x11))
	f.Add([]byte{255, 0, 114}, uint16(2))
	f.Fuzz(func(t *testing.T, ies []byte, capability uint16) {
		n := networkOf(nl80211.BSS{IEs: ies, Capability: capability}, "valley")
		if c := centreOf(ies); c < 0 || c > 255 {
			t.Errorf("centre %d", c)
		}
		if len(n.Name) > 3*255 || n.Own && n.Kind != "mesh" {
			t.Errorf("got %+v", n)
		}
	})
}

func TestCaptureIsBoundedAndOneAtATime(t *testing.T) {
	o := &world{states: []radio.State{{Name: "phy0", Iface: "mesh0", Wiphy: 4}}}
	w := o.with(profile)
	var length time.Duration
	var most, wiphy int
	w.capture = func(ctx context.Context, i int, to io.Writer, l time.Duration, m int) (int, error) {
		wiphy, length, most = i, l, m
		if err := w.Capture(ctx, model.CaptureRequest{}, to); !errors.Is(err, radio.ErrBusy) {
			t.Errorf("a second capture beside the first: %v", err)
		}
		return to.Write([]byte("x"))
	}
	var file bytes.Buffer
	if err := w.Capture(t.Context(), model.CaptureRequest{}, &file); err != nil || file.String() != "x" || wiphy != 4 || length != 10*time.Second || most != 4<<20 {
		t.Errorf("got %q of radio %d, %s, %d octets, %v", file.String(), wiphy, length, most, err)
	}
	if err := w.Capture(t.Context(), model.CaptureRequest{Seconds: 60, Bytes: 1024}, &file); err != nil || length != time.Minute || most != 1024 {
		t.Errorf("got %s, %d octets, %v", length, most, err)
	}
	if told := o.told(EventCaptured); len(told) != 2 || told[0].Fields["frames"] != "1" {
		t.Errorf("events: %+v", told)
	}
	for _, q := range []model.CaptureRequest{{Seconds: 61}, {Seconds: -1}, {Bytes: 100}, {Bytes: 8<<20 + 1}} {
		if err := w.Capture(t.Context(), q, io.Discard); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestChannelsSayWhyNot(t *testing.T) {
	o := &world{
		rules: nl80211.Regulatory{Country: "DE"}, states: []radio.State{{Name: "phy0", Iface: "mesh0"}},
		wiphys: []nl80211.Wiphy{{Name: "phy0", Bands: []nl80211.Band{{Channels: []nl80211.Allowed{
			{FreqMHz: 2412, MaxPowerMB: 2000}, {FreqMHz: 2484, Disabled: true}}}, {Channels: []nl80211.Allowed{
			{FreqMHz: 5180, NoIR: true, Indoor: true}, {FreqMHz: 5260, NoIR: true, Radar: true}}}}}},
		ifaces:  []nl80211.Interface{{Index: 3, Name: "mesh0", Channel: nl80211.Channel{FreqMHz: 2412}}},
		surveys: []nl80211.Survey{{FreqMHz: 2412, NoiseDBm: -92, Time: 200 * time.Millisecond, Busy: 50 * time.Millisecond}, {FreqMHz: 5180, Busy: 1}},
	}
	got, err := o.with(profile).Channels()
	if err != nil || len(got) != 1 || len(got[0].Channels) != 4 || got[0].Country != "DE" {
		t.Fatalf("got %+v, %v", got, err)
	}
	c := got[0].Channels
	if !c[0].Usable || !c[0].InUse || c[0].Channel != 1 || c[0].MaxPowerDBm != 20 || c[0].NoiseDBm != -92 || c[0].BusyPercent != 25 {
		t.Errorf("got %+v", c[0])
	}
	for i, want := range []string{"disables it", "only be listened on", "radar"} {
		if c[i+1].Usable || c[i+1].InUse || !strings.Contains(c[i+1].Why, want) || len(c[i+1].Flags) == 0 {
			t.Errorf("got %+v, want %q", c[i+1], want)
		}
	}
}

func TestLegal(t *testing.T) {
	de := nl80211.Regulatory{Country: "DE", Wiphy: -1, Rules: []nl80211.Rule{
		{StartKHz: 2_400_000, EndKHz: 2_483_500, MaxWidthKHz: 40_000, MaxEIRPMBm: 2000},
		{StartKHz: 5_150_000, EndKHz: 5_250_000, MaxWidthKHz: 20_000, MaxEIRPMBm: 2301, Flags: nl80211.RuleNoOutdoor}}}
	all := []nl80211.Band{{Channels: []nl80211.Allowed{{FreqMHz: 2412, MaxPowerMB: 1700}, {FreqMHz: 2484, Disabled: true}, {FreqMHz: 5180}}}}
	for _, tc := range []struct {
		name           string
		channel, width int
		rules          nl80211.Regulatory
		allowed        bool
		eirp           float64
		reason         string
	}{
		{"allowed", 1, 20, de, true, 20, "at most 20 dBm from the antenna (the kernel's rules of DE)"},
		{"the radio's own limit", 1, 20, de, true, 20, "it sends at most 17 dBm there (radio phy0)"},
		{"indoors", 36, 20, de, true, 23.01, "indoors only"},
		{"too wide", 36, 40, de, false, 23.01, "20 MHz wide at most"},
		{"disabled, and no rule", 14, 20, de, false, 0, "disables it"},
		{"no such channel", 149, 20, de, false, 0, "it has no channel at 5745 MHz (radio phy0)"},
		{"rules of the world", 1, 20, nl80211.Regulatory{Country: "00", Wiphy: -1, Rules: de.Rules}, true, 20, "the kernel does not have the rules of DE, and keeps to what is allowed everywhere (radio phy0)"},
		{"rules of another country", 1, 20, nl80211.Regulatory{Country: "US", Wiphy: 0, Rules: de.Rules}, false, 0, "the network is set to DE, and the kernel keeps to US"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &world{rules: tc.rules, states: []radio.State{{Name: "phy0", Iface: "mesh0"}}, wiphys: []nl80211.Wiphy{{Name: "phy0", Bands: all}}}
			m := profile
			m.Channel, m.Width = tc.channel, tc.width
			got, err := o.with(m).Legal()
			if err != nil || len(got) != 2 {
				t.Fatalf("got %+v, %v", got, err)
			}
			if l := got[0]; l.Allowed != tc.allowed || l.MaxEIRPDBm != tc.eirp || !strings.Contains(strings.Join(l.Reasons, "\n"), tc.reason) || l.Wanted != "DE" {
				t.Errorf("got %+v", l)
			}
			if h := got[1]; !h.Allowed || h.DutyCyclePct != 2.8 || h.MaxEIRPDBm != 16 || !strings.HasPrefix(h.Channel, "HaLow: S1G channel 1 (863.5 MHz, 1 MHz wide), 3 (864.5") {
				t.Errorf("HaLow: got %+v", h)
			}
		})
	}
	o := &world{rules: nl80211.Regulatory{Country: "00", Wiphy: -1, Rules: de.Rules}, states: []radio.State{{Name: "phy0", Iface: "mesh0"}}, wiphys: []nl80211.Wiphy{{Name: "phy0", Bands: all}}}
	w := o.with(profile)
	w.c.Country = ""
	if got, err := w.Legal(); err != nil || !got[0].Allowed || got[1].Allowed {
		t.Errorf("where nobody said where it stands: got %+v, %v", got, err)
	}
	if l := table("NZ", ""); len(l) != 2 || l[0].MaxEIRPDBm == l[1].MaxEIRPDBm || !l[0].Allowed {
		t.Errorf("HaLow with two powers: got %+v", l)
	}
	if l := table("BR", ""); len(l) != 1 || l[0].Allowed || !strings.Contains(l[0].Reasons[0], "HaLow stays off") {
		t.Errorf("HaLow where nothing is known: got %+v", l)
	}
}
