package mesh

import (
	"fmt"
	"io/fs"
	"maps"
	"testing"

	"halo.internal/mesh/batman"
	"halo.internal/model"
)

func TestWhatHaLowLinksAreWorth(t *testing.T) {
	peer := func(mbps float64) model.RadioPeer { return model.RadioPeer{Linked: true, TxMbps: mbps} }
	halow := func(width int, peers ...model.RadioPeer) model.Radio {
		return model.Radio{Iface: "mesh0", HaLow: "S1G channel 1", WidthMHz: width, Peers: peers}
	}
	wifi := func(linked bool) model.Radio {
		return model.Radio{Iface: "mesh1", Peers: []model.RadioPeer{{Linked: linked, TxMbps: 65}}}
	}
	cable := []model.Port{{Iface: "eth0", Role: "mesh", Members: []string{"n-a"}}}
	for name, tc := range map[string]struct {
		radios []model.Radio
		ports  []model.Port
		want   map[string]float64
	}{
		"no HaLow":                     {[]model.Radio{wifi(true)}, cable, map[string]float64{}},
		"HaLow alone":                  {[]model.Radio{halow(20, peer(3.33))}, nil, map[string]float64{"mesh0": 0}},
		"a port without members":       {[]model.Radio{halow(20, peer(3.33))}, []model.Port{{Iface: "eth0", Role: "client"}}, map[string]float64{"mesh0": 0}},
		"Wi-Fi without a link":         {[]model.Radio{halow(20, peer(3.33)), wifi(false)}, nil, map[string]float64{"mesh0": 0}},
		"beside Wi-Fi":                 {[]model.Radio{halow(20, peer(3.33)), wifi(true)}, nil, map[string]float64{"mesh0": 1.1}},
		"beside a cable":               {[]model.Radio{halow(20, peer(3.33))}, cable, map[string]float64{"mesh0": 1.1}},
		"the peer in the middle":       {[]model.Radio{halow(40, peer(0.65), peer(7.22), peer(2.6), model.RadioPeer{TxMbps: 0.1})}, cable, map[string]float64{"mesh0": 0.9}},
		"of two, the slower":           {[]model.Radio{halow(20, peer(3), peer(0.6))}, cable, map[string]float64{"mesh0": 0.2}},
		"slower than the unit":         {[]model.Radio{halow(20, peer(0.15))}, cable, map[string]float64{"mesh0": 0.1}},
		"no rate told yet":             {[]model.Radio{halow(160, peer(0))}, cable, map[string]float64{"mesh0": 1}},
		"a radio that is not a member": {[]model.Radio{{HaLow: "S1G channel 1"}}, cable, map[string]float64{}},
	} {
		if got := halowWorth(tc.radios, tc.ports); !maps.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// told notes what bat0 is told.
type told struct {
	ports map[string]float64
	n     int
}

func (b *told) Port(iface string) (batman.Port, error) {
	v, ok := b.ports[iface]
	if !ok {
		return batman.Port{}, fmt.Errorf("port %s: %w", iface, fs.ErrNotExist)
	}
	return batman.Port{Throughput: v}, nil
}

func (b *told) Rate(iface string, mbit float64) error {
	b.ports[iface] = mbit
	b.n++
	return nil
}

func TestWorthIsToldWhenItChanges(t *testing.T) {
	b := &told{ports: map[string]float64{"mesh0": 0}}
	for _, step := range []struct {
		worth float64
		want  float64
		n     int
	}{{0, 0, 0}, {1.1, 1.1, 1}, {1.1, 1.1, 1}, {1.3, 1.1, 1}, {1.4, 1.4, 2}, {1.1, 1.4, 2}, {0.2, 0.2, 3}, {0, 0, 4}, {0.1, 0.1, 5}} {
		if err := tellWorth(b, map[string]float64{"mesh0": step.worth, "mesh9": 5}); err != nil || b.ports["mesh0"] != step.want || b.n != step.n {
			t.Errorf("worth %g: got %v after %d times, %v, want %g after %d", step.worth, b.ports, b.n, err, step.want, step.n)
		}
	}
}
