package radio

import (
	"slices"
	"testing"

	"halo.internal/model/dot11"
)

func TestParseCapabilities(t *testing.T) {
	ht, vht := make([]byte, 26), make([]byte, 12)
	elements := dot11.AppendElement(nil, dot11.SupportedRates, []byte{0x82, 0x84, 0x8b, 0x0c, 0x12, 0x96, 0x18, 0x24})
	elements = dot11.AppendElement(elements, dot11.ExtendedSupportedRates, []byte{0x30, 0x48, 0x60, 0x6c})
	elements = dot11.AppendElement(elements, dot11.MeshConfiguration, []byte{1, 1, 0, 1, 1, 8, 0})
	elements = dot11.AppendElement(elements, htCapabilities, ht)
	elements = dot11.AppendElement(elements, vhtCapabilities, vht)
	c := parseCapabilities(elements)
	if want := []int{10, 20, 55, 60, 90, 110, 120, 180, 240, 360, 480, 540}; !slices.Equal(c.rates, want) || !slices.Equal(c.ht, ht) || !slices.Equal(c.vht, vht) || !c.full {
		t.Errorf("got %+v, want rates %v and a station that is full", c, want)
	}
	// What is cut off is left out; what came before it counts.
	if c := parseCapabilities(elements[:len(elements)-1]); c.vht != nil || len(c.rates) != 12 {
		t.Errorf("got %+v of elements that are cut off", c)
	}
}

func FuzzParseCapabilities(f *testing.F) {
	f.Add(dot11.AppendElement(dot11.AppendElement(nil, dot11.SupportedRates, []byte{0x82}), dot11.MeshConfiguration, make([]byte, 7)))
	f.Add(dot11.AppendElement(dot11.AppendElement(nil, htCapabilities, make([]byte, 26)), vhtCapabilities, make([]byte, 12)))
	f.Fuzz(func(t *testing.T, elements []byte) {
		c := parseCapabilities(elements)
		if len(c.rates) > maxRates || c.ht != nil && len(c.ht) != 26 || c.vht != nil && len(c.vht) != 12 {
			t.Errorf("%+v is more than the kernel takes", c)
		}
		for _, r := range c.rates {
			if r <= 0 || r > 635 {
				t.Errorf("rate %d", r)
			}
		}
		slices.Sort(c.rates)
		if len(slices.Compact(c.rates)) != len(c.rates) {
			t.Errorf("rates %v come twice", c.rates)
		}
	})
}
