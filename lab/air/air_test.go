package air

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
)

var (
	a1 = net.HardwareAddr{0x42, 0, 0, 0, 0, 1}
	a2 = net.HardwareAddr{0x42, 0, 0, 0, 0, 2}
	a3 = net.HardwareAddr{0x42, 0, 0, 0, 0, 3}
)

// line is three radios, of which neighbours hear each other, at distances in
// metres from the first.
func line(t *testing.T, p Profile, second, third float64) *Air {
	t.Helper()
	a := New(p, physics.Outdoors(), 1)
	for i, r := range []struct {
		address net.HardwareAddr
		x       float64
	}{{a1, 0}, {a2, second}, {a3, third}} {
		if err := a.Place(Radio{Name: string(rune('a' + i)), Address: r.address, Position: physics.Position{X: r.x}, PowerDBm: 20, FigureDB: 7}); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// from is a frame of 200 octets from the first radio, as its interface with the
// permanent address sends it.
func from(to net.HardwareAddr, rates ...hwsim.Attempt) hwsim.Frame {
	f := hwsim.Frame{Transmitter: a1, Data: make([]byte, 200), FreqMHz: 2412, Cookie: 7, Plan: hwsim.Attempts{{Rate: -1}, {Rate: -1}, {Rate: -1}, {Rate: -1}}}
	copy(f.Data[4:], to)
	copy(f.Plan[:], rates)
	return f
}

// ht makes the rates of a frame those of 802.11n.
func ht(f hwsim.Frame) hwsim.Frame {
	f.Kinds = [4]hwsim.Kind{hwsim.HT, hwsim.HT, hwsim.HT, hwsim.HT}
	return f
}

func permanent(address net.HardwareAddr) net.HardwareAddr {
	return append(net.HardwareAddr{address[0] &^ 0x40}, address[1:]...)
}

func heard(v fate) (names string) {
	for _, h := range v.hearings {
		names += h.radio.Name
	}
	return names
}

func TestCarry(t *testing.T) {
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	slow, fast := hwsim.Attempt{Rate: 4, Count: 2}, hwsim.Attempt{Rate: 11, Count: 2}
	for name, tc := range map[string]struct {
		set   func(*Air)
		frame hwsim.Frame
		heard string
		acked bool
		did   []hwsim.Attempt // the rest is unused
	}{
		"to all: the near one hears":  {nil, from(all, slow), "b", false, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"to the near one":             {nil, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"to the far one, overheard":   {nil, from(permanent(a3), fast, slow), "b", false, []hwsim.Attempt{fast, slow}},
		"to nobody":                   {nil, from(net.HardwareAddr{2, 9, 9, 9, 9, 9}, slow), "b", false, []hwsim.Attempt{slow}},
		"by the driver's own address": {nil, from(a2, slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"too fast for the distance":   {func(a *Air) { move(a, "b", 180) }, from(permanent(a2), fast, slow), "b", true, []hwsim.Attempt{fast, {Rate: 4, Count: 1}}},
		"802.11n, and falls back":     {func(a *Air) { move(a, "b", 180) }, ht(from(permanent(a2), hwsim.Attempt{Rate: 7, Count: 2})), "b", true, []hwsim.Attempt{{Rate: 7, Count: 2}, {Rate: 4, Count: 1}}},
		"54 Mb/s, and falls back":     {func(a *Air) { move(a, "b", 180) }, from(permanent(a2), fast), "b", true, []hwsim.Attempt{fast, {Rate: 4, Count: 1}}},
		"a full plan, and falls back": {func(a *Air) { move(a, "b", 180) }, from(permanent(a2), fast, fast, fast, fast), "b", true, []hwsim.Attempt{fast, fast, fast, {Rate: 4, Count: 1}}},
		"1 Mb/s, all in vain":         {func(a *Air) { a.SetLoss("a", "b", 1) }, from(permanent(a2), hwsim.Attempt{Rate: 0, Count: 2}), "", false, []hwsim.Attempt{{Rate: 0, Count: 2}}},
		"802.11n, to nobody":          {nil, ht(from(net.HardwareAddr{2, 9, 9, 9, 9, 9}, hwsim.Attempt{Rate: 7, Count: 2})), "b", false, []hwsim.Attempt{{Rate: 7, Count: 2}, {Rate: 4, Count: 4}}},
		"802.11n to all":              {nil, ht(from(all, hwsim.Attempt{Rate: 0, Count: 2})), "b", false, []hwsim.Attempt{{Rate: 0, Count: 1}}},
		"without a plan":              {nil, from(permanent(a2)), "b", true, nil},
		"cut":                         {func(a *Air) { a.Cut("a", "b", true) }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"restored":                    {func(a *Air) { a.Cut("a", "b", true); a.Cut("a", "b", false) }, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"acknowledgements cut":        {func(a *Air) { a.Cut("b", "a", true) }, from(permanent(a2), slow), "b", false, []hwsim.Attempt{slow}},
		"all lost":                    {func(a *Air) { a.SetLoss("a", "b", 1) }, from(all, slow), "", false, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"behind an obstacle":          {func(a *Air) { a.SetObstacle("a", "b", 60) }, from(all, slow), "", false, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"jammed":                      {func(a *Air) { a.Jam(Jammer{FreqMHz: 2412, RaiseDB: 45}) }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"jammed everywhere":           {func(a *Air) { a.Jam(Jammer{RaiseDB: 45}) }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"jammed from beside":          {func(a *Air) { a.Jam(Jammer{PowerDBm: 20, At: &physics.Position{X: 31}}) }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"jammed from afar":            {func(a *Air) { a.Jam(Jammer{PowerDBm: 20, At: &physics.Position{X: 9000}}) }, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"no more jammed":              {func(a *Air) { a.Jam(Jammer{RaiseDB: 45}); a.Jam(Jammer{FreqMHz: 2412, RaiseDB: 45}); a.Quiet(0) }, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"in another group":            {func(a *Air) { a.Partition([]string{"b"}) }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"in the same group":           {func(a *Air) { a.Partition([]string{"c"}) }, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"healed":                      {func(a *Air) { a.Partition([]string{"b"}); a.Heal() }, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"all cuts restored":           {func(a *Air) { a.Cut("a", "b", true); a.Cut("b", "a", true); a.Restore() }, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"a cut outlives a partition":  {func(a *Air) { a.Cut("a", "b", true); a.Partition([]string{"c"}); a.Heal() }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"jammed elsewhere": {func(a *Air) {
			a.Jam(Jammer{FreqMHz: 2437, RaiseDB: 45})
			a.Jam(Jammer{FreqMHz: 2412, RaiseDB: 45})
			a.Quiet(2412)
		}, from(permanent(a2), slow), "b", true, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"the far one comes near":       {func(a *Air) { move(a, "c", 20) }, from(all, slow), "bc", false, []hwsim.Attempt{{Rate: 4, Count: 1}}},
		"the near one is gone":         {func(a *Air) { a.Remove("b") }, from(permanent(a2), slow), "", false, []hwsim.Attempt{slow}},
		"the sender is in no position": {func(a *Air) { a.Remove("a") }, from(all, slow), "", false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := line(t, WiFi(), 30, 2000)
			if tc.set != nil {
				tc.set(a)
			}
			v := a.carry(tc.frame)
			want := hwsim.Attempts{{Rate: -1}, {Rate: -1}, {Rate: -1}, {Rate: -1}}
			copy(want[:], tc.did)
			if heard(v) != tc.heard || v.acked != tc.acked || v.did != want {
				t.Errorf("heard by %q, acknowledged %v, did %v, want %q, %v, %v", heard(v), v.acked, v.did, tc.heard, tc.acked, want)
			}
		})
	}
}

func move(a *Air, name string, x float64) {
	if err := a.Move(name, physics.Position{X: x}); err != nil {
		panic(err)
	}
}

func TestCounters(t *testing.T) {
	a := line(t, WiFi(), 30, 2000)
	a.SetLoss("a", "b", 0.3)
	for range 1000 {
		a.carry(from(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, hwsim.Attempt{Rate: 4, Count: 1}))
	}
	c := a.Counters()
	if got := c["a b"]; got.Frames != 1000 || got.Heard < 650 || got.Heard > 750 || got.SNR < 20 || got.SNR > 40 {
		t.Errorf("near: got %+v, want 70 %% heard", got)
	}
	if got := c["a c"]; got.Frames != 1000 || got.Heard != 0 {
		t.Errorf("far: got %+v", got)
	}
}

// TestHaLowReachesFurtherAndTakesLonger compares the two profiles.
func TestHaLowReachesFurtherAndTakesLonger(t *testing.T) {
	const far = 900
	frame := from(permanent(a2), hwsim.Attempt{Rate: 0, Count: 3})
	wifi := line(t, WiFi(), far, 5000).carry(frame)
	halow := line(t, HaLow(1), far, 5000).carry(frame)
	if wifi.acked || !halow.acked {
		t.Errorf("over %d m: Wi-Fi %v, HaLow %v", far, wifi.acked, halow.acked)
	}
	// 200 octets at 150 kbit/s take 10.8 ms.
	if got := halow.airtime.Airtime; got < 11*time.Millisecond || got > 16*time.Millisecond {
		t.Errorf("airtime at MCS 10: got %s", got)
	}
}

func TestRates(t *testing.T) {
	for _, tc := range []struct {
		profile Profile
		freq    int
		kind    hwsim.Kind
		n       int
		kbps    float64
		as      int
	}{
		{WiFi(), 2412, hwsim.Legacy, 0, 1000, 0},
		{WiFi(), 2412, hwsim.Legacy, 11, 54000, 11},
		{WiFi(), 5180, hwsim.Legacy, 0, 6000, 0},
		{WiFi(), 5180, hwsim.Legacy, 99, 54000, 7},
		{WiFi(), 2412, hwsim.HT, 15, 65000, 11},
		{WiFi(), 5180, hwsim.VHT, 0x19, 65000, 7},
		{HaLow(1), 2412, hwsim.Legacy, 3, 150, 3},
		{HaLow(2), 2412, hwsim.Legacy, 3, 650, 3},
		{HaLow(1), 5180, hwsim.Legacy, 7, 2700, 7},
		{HaLow(8), 5180, hwsim.HT, 7, 29250, 7},
		{HaLow(4), 2412, hwsim.Legacy, -1, 1350, 0},
	} {
		if got := tc.profile.rate(tc.freq, tc.kind, tc.n).Kbps; got < tc.kbps-0.5 || got > tc.kbps+0.5 {
			t.Errorf("%s %g MHz: %d/%d at %d MHz: got %g kbit/s, want %g", tc.profile.Name, tc.profile.WidthMHz, tc.kind, tc.n, tc.freq, got, tc.kbps)
		}
		if got := delivered(tc.freq, tc.kind, tc.n); got != tc.as {
			t.Errorf("%d/%d at %d MHz is delivered as %d, want %d", tc.kind, tc.n, tc.freq, got, tc.as)
		}
	}
}

// script is a medium that sends some frames and then none.
type script struct {
	frames chan hwsim.Frame
	did    chan string
	closed chan struct{}
}

func (s *script) Next() (hwsim.Frame, error) {
	select {
	case f := <-s.frames:
		return f, nil
	case <-s.closed:
		return hwsim.Frame{}, net.ErrClosed
	}
}

func (s *script) Deliver(to net.HardwareAddr, data []byte, rate, signal, freq int) error {
	s.did <- "deliver " + to.String()
	return nil
}

func (s *script) Report(f hwsim.Frame, ack bool, signal int, did hwsim.Attempts) error {
	if ack {
		s.did <- "acked " + f.Transmitter.String()
	} else {
		s.did <- "lost " + f.Transmitter.String()
	}
	return nil
}

func (s *script) Close() error { close(s.closed); return nil }

func TestRun(t *testing.T) {
	a := line(t, WiFi(), 30, 2000)
	s := &script{make(chan hwsim.Frame, 10), make(chan string, 100), make(chan struct{})}
	stranger := from(permanent(a2), hwsim.Attempt{Rate: 4, Count: 1})
	stranger.Transmitter = net.HardwareAddr{0x42, 9, 9, 9, 9, 9}
	for _, f := range []hwsim.Frame{from(permanent(a2), hwsim.Attempt{Rate: 4, Count: 1}), from(permanent(a3), hwsim.Attempt{Rate: 4, Count: 1}), stranger} {
		s.frames <- f
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx, s) }()
	var got []string
	for range 5 {
		got = append(got, <-s.did)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if want := []string{"deliver " + a2.String(), "acked " + a1.String(), "deliver " + a2.String(), "lost " + a1.String(), "lost " + stranger.Transmitter.String()}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunEndsWithTheMedium(t *testing.T) {
	a := line(t, WiFi(), 30, 2000)
	broken := errors.New("broken")
	if err := a.Run(t.Context(), failing{&script{closed: make(chan struct{})}, broken}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestAMachineSpeaksForItsOwnRadiosAlone(t *testing.T) {
	a := line(t, WiFi(), 30, 2000) // of the machine without a name
	s := &script{frames: make(chan hwsim.Frame, 1), closed: make(chan struct{})}
	s.frames <- from(permanent(a2), hwsim.Attempt{Rate: 4, Count: 1})
	if err := a.Attach(t.Context(), "another", s); err == nil || !strings.Contains(err.Error(), `machine "another": expected frames of its own radios, got one of a`) {
		t.Errorf("got %v", err)
	}
}

type failing struct {
	*script
	err error
}

func (f failing) Next() (hwsim.Frame, error) { return hwsim.Frame{}, f.err }

func TestNamed(t *testing.T) {
	for _, name := range []string{"wifi", "halow-1", "halow-8"} {
		if p, err := Named(name); err != nil || p.Name != name || p.rate == nil {
			t.Errorf("%s: got %+v, %v", name, p, err)
		}
	}
	if _, err := Named("lora"); err == nil || err.Error() != `profile: expected one of [wifi halow-1 halow-2 halow-4 halow-8], got "lora"` {
		t.Errorf("got %v", err)
	}
}

func TestPlaces(t *testing.T) {
	a := New(WiFi(), physics.Outdoors(), 1)
	if err := a.Place(Radio{Name: "x"}); err == nil {
		t.Error("a radio without an address was taken")
	}
	if err := a.Move("x", physics.Position{}); err == nil {
		t.Error("a radio that is not there was moved")
	}
	r := Radio{Name: "x", Address: a1}
	for _, mac := range [][]byte{a1, permanent(a1), {0x06, 0, 0, 0, 0, 1}, {0x0e, 0, 0, 0, 0, 1}} {
		if !r.has(mac) {
			t.Errorf("%x is not its own", mac)
		}
	}
	if r.has(a2) || r.has([]byte{0x03, 0, 0, 0, 0, 1}) || r.has([]byte{0x12, 0, 0, 0, 0, 1}) || r.has(bytes.Repeat([]byte{0xff}, 6)) {
		t.Error("it takes the addresses of others")
	}
}
