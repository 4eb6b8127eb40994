// Package channel knows the S1G channels (802.11ah, below 1 GHz) of countries:
// their numbers, centres and widths, and the channels of 5 GHz under which
// Morse's driver shows them to the kernel, which knows no S1G of its own there.
//
// An S1G number fixes the width too: in the United States 44 is 8 MHz wide and
// nothing else. Numbers have changed with editions of the standard where a
// country has more than one channelization, so tables are named by country and
// scheme; driver and all members of a mesh must agree on both.
//
// Sources: Morse's driver, dot11ah/s1g_channels_rules.c and s1g_channels.c at
// d457021 (2026), and the regulatory table of its OpenWrt feed,
// morse-regdb/artefacts/repo_channels.csv at 1cb25f1; both agree on all that is
// here. Global operating classes: IEEE 802.11 Annex E by the second.
package channel

import (
	"fmt"
	"slices"
	"strings"

	"halo.internal/drivers/nl80211"
)

// Scheme is an edition of the channelization, numbered as Morse's driver does.
type Scheme uint8

// Schemes. A country with one numbering has Fixed, whatever the driver says.
const (
	Fixed  Scheme = 0
	IEEE20 Scheme = 1 // IEEE 802.11-2020
	IEEE24 Scheme = 2 // IEEE 802.11-2024
	REVmf  Scheme = 3 // the revision after that: the default of drivers since 1.17
)

// String returns e.g. "802.11-2020".
func (s Scheme) String() string {
	switch s {
	case Fixed:
		return "fixed"
	case IEEE20:
		return "802.11-2020"
	case IEEE24:
		return "802.11-2024"
	case REVmf:
		return "802.11-REVmf"
	}
	return fmt.Sprintf("scheme %d", uint8(s))
}

// ParseScheme reads what String writes; an empty text is Fixed.
func ParseScheme(s string) (Scheme, error) {
	if s == "" {
		return Fixed, nil
	}
	var names []string
	for _, c := range []Scheme{IEEE20, IEEE24, REVmf} {
		if s == c.String() {
			return c, nil
		}
		names = append(names, c.String())
	}
	return 0, fmt.Errorf("S1G channels: expected a scheme of %s, got %q", strings.Join(names, ", "), s)
}

// Channel is an S1G channel.
type Channel struct {
	Number    int
	CentreKHz int
	WidthMHz  int // 1, 2, 4 or 8
	Class     int // global operating class; 0 is not known here
	As5GHz    int // number of the 5 GHz channel, 20 times as wide, that stands for it in the kernel
}

// String returns e.g. "S1G channel 44 (924.0 MHz, 8 MHz wide)".
func (c Channel) String() string {
	return fmt.Sprintf("S1G channel %d (%d.%d MHz, %d MHz wide)", c.Number, c.CentreKHz/1000, c.CentreKHz%1000/100, c.WidthMHz)
}

// Short returns e.g. "S1G channel 44": all that is known of one that no table has.
func (c Channel) Short() string { return fmt.Sprintf("S1G channel %d", c.Number) }

// LowKHz is where the channel begins.
func (c Channel) LowKHz() int { return c.CentreKHz - c.WidthMHz*500 }

// HighKHz is where the channel ends.
func (c Channel) HighKHz() int { return c.CentreKHz + c.WidthMHz*500 }

// Table is the channels of a country under one scheme, by width and number.
type Table struct {
	Region   string // as Morse's driver calls it: a country (ISO 3166), or EU
	Scheme   Scheme
	Channels []Channel
}

// Region returns the name by which the tables and Morse's driver know a
// country: EU for those that take part in the European rules for 863–868 MHz,
// the country itself for others.
func Region(country string) string {
	if slices.Contains(european, country) {
		return "EU"
	}
	return country
}

// european are the members of the EU and of EFTA.
var european = strings.Fields("AT BE BG CH CY CZ DE DK EE ES EU FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK")

// Regions returns the regions there are tables for, sorted.
func Regions() []string {
	var all []string
	for _, t := range tables() {
		if !slices.Contains(all, t.Region) {
			all = append(all, t.Region)
		}
	}
	slices.Sort(all)
	return all
}

// For returns the table of a country (ISO 3166, two letters) under a scheme. A
// country with one numbering takes any scheme; for one with several Fixed is
// refused, since a guess would send elsewhere than the driver does.
func For(country string, s Scheme) (Table, error) {
	region := Region(country)
	var schemes []string
	for _, t := range tables() {
		if t.Region != region {
			continue
		}
		if t.Scheme == Fixed || t.Scheme == s {
			return t, nil
		}
		schemes = append(schemes, t.Scheme.String())
	}
	if schemes != nil {
		return Table{}, fmt.Errorf("S1G channels of %s: expected one of the schemes %s, got %s: name that of the driver", country, strings.Join(schemes, ", "), s)
	}
	return Table{}, fmt.Errorf("S1G channels: expected a country of %s, got %q: HaLow stays off where its rules are not known", strings.Join(Regions(), ", "), country)
}

// Find returns the channel of that number. widthMHz is what the caller takes it
// to be wide, or 0; since the number fixes the width, another is an error.
func (t Table) Find(number, widthMHz int) (Channel, error) {
	for _, c := range t.Channels {
		if c.Number != number {
			continue
		}
		if widthMHz != 0 && widthMHz != c.WidthMHz {
			return Channel{}, fmt.Errorf("S1G channel %d of %s is %d MHz wide, not %d: %s", number, t.Region, c.WidthMHz, widthMHz, t.ofWidth(widthMHz))
		}
		return c, nil
	}
	return Channel{}, fmt.Errorf("%s (%s) has no S1G channel %d: %s", t.Region, t.Scheme, number, t.ofWidth(widthMHz))
}

// ofWidth says which channels there are, of one width or, for 0, of all.
func (t Table) ofWidth(widthMHz int) string {
	var list []string
	for _, w := range []int{1, 2, 4, 8} {
		var numbers []string
		for _, c := range t.Channels {
			if c.WidthMHz == w && (widthMHz == 0 || widthMHz == w) {
				numbers = append(numbers, fmt.Sprint(c.Number))
			}
		}
		if numbers != nil {
			list = append(list, fmt.Sprintf("%d MHz: %s", w, strings.Join(numbers, " ")))
		}
	}
	if list == nil {
		return fmt.Sprintf("it has none of %d MHz", widthMHz)
	}
	return "it has " + strings.Join(list, "; ")
}

// Of5GHz returns the channel that a number of 5 GHz stands for, where that is
// the centre of the whole.
func (t Table) Of5GHz(number int) (Channel, bool) {
	i := slices.IndexFunc(t.Channels, func(c Channel) bool { return c.As5GHz == number })
	if i < 0 {
		return Channel{}, false
	}
	return t.Channels[i], true
}

// Heard returns the channels that a network may be on which the kernel shows on a channel
// of 5 GHz by that number, its control channel. centre is the number of the centre of the
// whole, as Morse's driver writes it into VHT Operation (rx_s1g_to_11n.c), and tells
// which one it is; where it says nothing, all are returned whose usual control channel
// that is, the narrowest first.
func (t Table) Heard(control, centre int) []Channel {
	if c, ok := t.Of5GHz(centre); ok {
		for i := range c.WidthMHz {
			if c.controlledBy(control, i) {
				return []Channel{c}
			}
		}
	}
	var list []Channel
	for _, c := range t.Channels {
		if c.controlledBy(control, c.Primary()) {
			list = append(list, c)
		}
	}
	return list
}

// controlledBy tells whether the 1 MHz channel of that index is, for the kernel, the
// channel of 5 GHz by that number.
func (c Channel) controlledBy(number, index int) bool {
	k, err := c.Kernel(index)
	return err == nil && k.FreqMHz == 5000+5*number
}

// Primary returns the index of the 1 MHz channel within c that carries beacons
// unless a profile says otherwise, as Morse's mesh scripts have it: 3 in 8 MHz,
// 2 in 4 MHz, else 0.
func (c Channel) Primary() int {
	switch c.WidthMHz {
	case 8:
		return 3
	case 4:
		return 2
	}
	return 0
}

// Kernel returns what the kernel is to be asked for so that Morse's driver goes
// to c with the 1 MHz channel of that index (0 to WidthMHz-1, from below) as the
// control channel: everything is 20 times as wide, on 5 GHz.
func (c Channel) Kernel(primary int) (nl80211.Channel, error) {
	if primary < 0 || primary >= c.WidthMHz {
		return nl80211.Channel{}, fmt.Errorf("%s: expected a primary channel of 0 to %d, got %d", c, c.WidthMHz-1, primary)
	}
	width := map[int]nl80211.Width{1: nl80211.Width20, 2: nl80211.Width40, 4: nl80211.Width80, 8: nl80211.Width160}[c.WidthMHz]
	centre := 5000 + 5*c.As5GHz
	return nl80211.Channel{FreqMHz: centre - 10*(c.WidthMHz-1) + 20*primary, Width: width, Center1MHz: centre}, nil
}
