// Package s1g knows the channels of Wi-Fi HaLow (802.11ah, S1G): which there are
// in a country, where they lie, how wide they are, and what the law lets a
// station do on them. The kernel's regulatory database has no S1G, and drivers
// map its channels to numbers of 5 GHz; so this is a table of our own.
//
// What holds it together is the number: it fixes the width. Numbers are those of
// one channelization scheme; radios and drivers of another one differ, which is
// why it is named.
package s1g

import (
	"fmt"
	"slices"
	"strings"
)

// Scheme names the channelization and where the numbers below come from: the
// operating classes 64 to 77 of 802.11-2020, Annex E, as Morse Micro's regulatory
// table repo_channels.csv of 2024 has them (driver 1.12).
const Scheme = "802.11-2020 Annex E, as Morse Micro's table of 2024 (driver 1.12)"

// Channel is one channel of a country.
type Channel struct {
	Number    int
	Class     int // global operating class
	CentreKHz int
	WidthMHz  int // 1, 2, 4 or 8
}

// String returns e.g. "channel 28 (916.0 MHz, 8 MHz wide)".
func (c Channel) String() string {
	return fmt.Sprintf("channel %d (%d.%d MHz, %d MHz wide)", c.Number, c.CentreKHz/1000, c.CentreKHz%1000/100, c.WidthMHz)
}

// Rules are what holds in a country.
type Rules struct {
	Country     string // ISO 3166 alpha-2
	Region      string // whose channelization it has: US, AU, EU or JP
	Channels    []Channel
	MaxEIRPDBm  int
	DutyCycle   float64 // percent of an hour that a station may send; 100 is without a limit
	DutyCycleAP float64 // the same for an access point
	Reasons     []string
}

// region is what the countries of one channelization have in common.
type region struct {
	name                   string
	countries              []string
	channels               func() []Channel
	eirp                   int
	duty, dutyAP           float64
	bands, power, dutyText string // the reasons
}

func regions() []region {
	return []region{
		{
			name: "US", countries: []string{"US"}, eirp: 30, duty: 100, dutyAP: 100,
			channels: func() []Channel {
				return slices.Concat(every(902_000, 68, 1, 1, 51, 2), every(902_000, 69, 2, 2, 50, 4), every(902_000, 70, 4, 8, 48, 8), every(902_000, 71, 8, 12, 44, 16))
			},
			bands: "902 to 928 MHz", power: "30 dBm are the most that the driver sends there", dutyText: "there is no limit of the duty cycle",
		},
		{
			name: "AU", countries: []string{"AU", "NZ"}, eirp: 30, duty: 100, dutyAP: 100,
			channels: func() []Channel {
				return slices.Concat(every(902_000, 68, 1, 27, 51, 2), every(902_000, 69, 2, 30, 50, 4), every(902_000, 70, 4, 32, 48, 8), every(902_000, 71, 8, 44, 44, 16))
			},
			bands: "915 to 928 MHz", power: "30 dBm are the most that the driver sends there", dutyText: "there is no limit of the duty cycle",
		},
		{
			name: "EU", countries: european, eirp: 16, duty: 2.8, dutyAP: 10,
			channels: func() []Channel { return every(863_000, 66, 1, 1, 9, 2) },
			bands:    "863 to 868 MHz, in channels of 1 MHz", power: "16 dBm are the most that the driver sends there",
			dutyText: "2.8 % for stations and 10 % for access points; a mesh takes that of stations, the lower",
		},
		{
			name: "JP", countries: []string{"JP"}, eirp: 16, duty: 10, dutyAP: 10,
			channels: func() []Channel {
				return []Channel{
					{9, 73, 921_000, 1}, {13, 73, 923_000, 1}, {15, 73, 924_000, 1}, {17, 73, 925_000, 1}, {19, 73, 926_000, 1}, {21, 73, 927_000, 1},
					{2, 64, 923_500, 2}, {4, 64, 924_500, 2}, {6, 64, 925_500, 2}, {8, 64, 926_500, 2},
					{36, 65, 924_500, 4}, {38, 65, 925_500, 4},
				}
			},
			bands: "920.5 to 928 MHz", power: "16 dBm are the most that the driver sends there", dutyText: "10 % of the time",
		},
	}
}

// european are the countries of the European Union and the EFTA, and the United
// Kingdom. Some of them have more than 863 to 868 MHz; which, this does not know.
var european = strings.Fields("AT BE BG CH CY CZ DE DK EE ES FI FR GB GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK")

// every returns the channels first, first+step … last of one width, which lie at
// start + n/2 MHz.
func every(startKHz, class, width, first, last, step int) (list []Channel) {
	for n := first; n <= last; n += step {
		list = append(list, Channel{Number: n, Class: class, CentreKHz: startKHz + n*500, WidthMHz: width})
	}
	return list
}

// For returns the rules of a country; ok is false for one that this table does
// not have, in which nothing may be sent.
func For(country string) (r Rules, ok bool) {
	for _, g := range regions() {
		if slices.Contains(g.countries, country) {
			return Rules{
				Country: country, Region: g.name, Channels: g.channels(), MaxEIRPDBm: g.eirp, DutyCycle: g.duty, DutyCycleAP: g.dutyAP,
				Reasons: []string{
					fmt.Sprintf("band: %s, by the rules of %s", g.bands, g.name),
					"power: " + g.power,
					"duty cycle: " + g.dutyText,
					"channels: " + Scheme,
				},
			}, true
		}
	}
	return Rules{}, false
}

// Channel returns a country's channel of that number. Numbers may be in several
// classes; in one country they are not.
func (r Rules) Channel(number int) (Channel, bool) {
	i := slices.IndexFunc(r.Channels, func(c Channel) bool { return c.Number == number })
	if i < 0 {
		return Channel{}, false
	}
	return r.Channels[i], true
}

// MaxWidthMHz is that of the widest channel.
func (r Rules) MaxWidthMHz() int {
	w := 0
	for _, c := range r.Channels {
		w = max(w, c.WidthMHz)
	}
	return w
}
