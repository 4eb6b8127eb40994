package batman

import (
	"net"
	"reflect"
	"testing"

	"halo.internal/model/dot11"
)

func TestLinks(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	way := func(to, by byte, tq uint8, best bool) Originator {
		return Originator{MAC: mac(to), NextHop: mac(by), Iface: "mesh0", TQ: tq, Best: best}
	}
	m := func(n byte) dot11.MAC { return dot11.MAC(mac(n)) }
	for name, tc := range map[string]struct {
		ways []Originator
		want map[dot11.MAC][]dot11.MAC
	}{
		"nobody":                 {nil, map[dot11.MAC][]dot11.MAC{}},
		"two that know not each": {[]Originator{way(1, 1, 255, true), way(2, 2, 250, true)}, map[dot11.MAC][]dot11.MAC{}},
		"one passes the other's word on": {[]Originator{way(1, 1, 255, true), way(1, 2, 200, false), way(2, 2, 250, true)},
			map[dot11.MAC][]dot11.MAC{m(1): {m(2)}, m(2): {m(1)}}},
		"both do": {[]Originator{way(1, 1, 255, true), way(1, 2, 200, false), way(2, 2, 250, true), way(2, 1, 200, false)},
			map[dot11.MAC][]dot11.MAC{m(1): {m(2)}, m(2): {m(1)}}},
		"one that is not heard itself": {[]Originator{way(3, 1, 200, true), way(1, 1, 255, true)},
			map[dot11.MAC][]dot11.MAC{m(1): {m(3)}, m(3): {m(1)}}},
		"no longer":               {[]Originator{way(1, 1, 255, true), way(1, 2, 0, false), way(2, 2, 250, true)}, map[dot11.MAC][]dot11.MAC{}},
		"perhaps through us":      {[]Originator{way(1, 1, 255, true), way(1, 2, 100, false), way(2, 3, 250, true), way(2, 2, 30, false), way(3, 3, 255, true)}, map[dot11.MAC][]dot11.MAC{m(2): {m(3)}, m(3): {m(2)}}},
		"BATMAN_V tells too late": {[]Originator{{MAC: mac(1), NextHop: mac(1), Best: true, Throughput: 10}, {MAC: mac(2), NextHop: mac(1), Best: true, Throughput: 10}}, map[dot11.MAC][]dot11.MAC{}},
		"addresses of no form":    {[]Originator{{MAC: nil, NextHop: mac(1), TQ: 9, Best: true}, {MAC: mac(1), NextHop: net.HardwareAddr{1}, TQ: 9}}, map[dot11.MAC][]dot11.MAC{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Links(tc.ways); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
