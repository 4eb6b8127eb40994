package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"halo.internal/model/dot11"
)

// Mesh is the mesh profile: what all members have to agree on. The fields from
// HopPenalty on may be left out; WithDefaults fills in those about radios, from
// Channel on.
type Mesh struct {
	SSID    string `toml:"ssid" comment:"mesh ID, 1 to 32 octets"`
	PSK     string `toml:"psk" comment:"secret"`
	Routing string `toml:"routing" comment:"BATMAN_IV or BATMAN_V, the same on every node"`

	HopPenalty int `toml:"hop_penalty,omitempty" comment:"what routing takes off a way for each node that passes on, of 255; left out: batman-adv's own, 30"`

	Channel        int    `toml:"channel,omitempty" comment:"number of a Wi-Fi channel of 2.4 GHz (1 to 14) or 5 GHz (36 to 177); left out: 1"`
	Width          int    `toml:"width,omitempty" comment:"of the channel in MHz: 20 or 40; left out: 20"`
	MFP            string `toml:"mfp,omitempty" comment:"management frame protection: required, optional or off; left out: required"`
	SAE            string `toml:"sae,omitempty" comment:"hash-to-element or, with wpa_supplicant's members, hunting-and-pecking; left out: hash-to-element"`
	BeaconInterval int    `toml:"beacon_interval,omitempty" comment:"in time units of 1.024 ms, 20 to 10000; left out: 1000"`

	HaLowChannel int    `toml:"halow_channel,omitempty" comment:"S1G number, which fixes the width too; left out: HaLow radios stay off"`
	HaLowScheme  string `toml:"halow_scheme,omitempty" comment:"numbering of S1G channels, where the country has several: 802.11-2020, 802.11-2024 or 802.11-REVmf"`
}

// Values of MFP and SAE.
const (
	MFPRequired = "required"
	MFPOptional = "optional"
	MFPOff      = "off"

	HashToElement     = "hash-to-element"
	HuntingAndPecking = "hunting-and-pecking"
)

// HaLowSchemes are the values of HaLowScheme, as drivers/halow/channel names
// them.
var HaLowSchemes = []string{"802.11-2020", "802.11-2024", "802.11-REVmf"}

// WithDefaults returns the profile with what was left out filled in. Channel 1
// it is since every country, and the kernel's rules for the whole world, let a
// mesh send there.
func (m Mesh) WithDefaults() Mesh {
	m.Channel = cmp.Or(m.Channel, 1)
	m.Width = cmp.Or(m.Width, 20)
	m.MFP = cmp.Or(m.MFP, MFPRequired)
	m.SAE = cmp.Or(m.SAE, HashToElement)
	m.BeaconInterval = cmp.Or(m.BeaconInterval, 1000)
	return m
}

// Check tells all that is wrong with a profile that did not come in a bundle, as
// Bundle.Check does; the secret is not repeated.
func (m Mesh) Check() error {
	var errs []error
	m.check(func(key, expected string, got any) {
		errs = append(errs, fmt.Errorf("%s: expected %s, got %q", key, expected, fmt.Sprint(got)))
	})
	return errors.Join(errs...)
}

// CheckChosen tells what is wrong with a profile that Check passes and that somebody
// chooses now. One that is in force from before is not refused for that: its network goes
// on, and may choose another.
func (m Mesh) CheckChosen() error {
	if m = m.WithDefaults(); m.HaLowChannel != 0 && m.BeaconInterval < minHaLowBeacons {
		return fmt.Errorf("mesh.beacon_interval: expected %d (a second) to 10000 time units with a halow_channel, got %d", minHaLowBeacons, m.BeaconInterval)
	}
	return nil
}

// batmanPenalty is batman-adv's hop penalty for either algorithm
// (batadv_softif_init_late of the kernel).
const batmanPenalty = 30

// Penalty is what routing takes off a way for each node that passes on, of 255. It
// is named also where the profile leaves it out: bat0 may have another from before.
func (m Mesh) Penalty() uint8 { return uint8(cmp.Or(m.HopPenalty, batmanPenalty)) }

// OGMAirtime is about what a message of the routing protocol takes of a channel, to all
// at the lowest rate: measured at 1 MHz (docs/halow.md), computed for Wi-Fi at 6 Mbit/s.
func (m Mesh) OGMAirtime() time.Duration {
	if m.HaLowChannel != 0 {
		return 4200 * time.Microsecond
	}
	return 300 * time.Microsecond
}

// OGMInterval is how often a member says by the routing protocol that it exists
// (BATMAN_IV's OGM, BATMAN_V's OGM2), which all the others pass on, where few are: the
// more are heard, the more rarely it does (mesh/pace.go), up to OGMLongest. What a
// channel of Wi-Fi does not notice would fill one of HaLow; `make bench-mesh` measures
// the shares.
func (m Mesh) OGMInterval() time.Duration {
	if m.HaLowChannel != 0 {
		return 2 * time.Second
	}
	return time.Second
}

// OGMLongest is the longest interval.
func (m Mesh) OGMLongest() time.Duration {
	if m.HaLowChannel != 0 {
		return 20 * time.Second
	}
	return 4 * time.Second
}

// ELPInterval is how often BATMAN_V looks for neighbours on a radio, and probes
// those that are idle; 0 leaves it to the kernel.
func (m Mesh) ELPInterval() time.Duration {
	if m.HaLowChannel != 0 {
		return 5 * time.Second
	}
	return 0
}

// minHaLowBeacons is the shortest interval of beacons on HaLow, in time units: a second.
// At a tenth of it, ten members' beacons alone would take two thirds of a channel of
// 1 MHz (`make bench-mesh`: 6.8 % at 1000).
const minHaLowBeacons = 977

// check calls bad for each value that is wrong.
func (m Mesh) check(bad func(key, expected string, got any)) {
	if len(m.SSID) < 1 || len(m.SSID) > 32 {
		bad("mesh.ssid", "1 to 32 octets", m.SSID)
	}
	if len(m.PSK) < 12 || len(m.PSK) > 63 {
		bad("mesh.psk", "12 to 63 characters", fmt.Sprintf("%d characters", len(m.PSK)))
	}
	if m.Routing != "BATMAN_IV" && m.Routing != "BATMAN_V" {
		bad("mesh.routing", "BATMAN_IV or BATMAN_V", m.Routing)
	}
	if m.HopPenalty < 0 || m.HopPenalty > 255 {
		bad("mesh.hop_penalty", "0 to 255", m.HopPenalty)
	}
	m = m.WithDefaults()
	if dot11.ChannelMHz(m.Channel) == 0 {
		bad("mesh.channel", "1 to 14, or one of 5 GHz: 36, 40 … 64, 100, 104 … 144, 149, 153 … 177", m.Channel)
	}
	if m.Width != 20 && m.Width != 40 {
		bad("mesh.width", "20 or 40 (MHz)", m.Width)
	} else if m.Width == 40 && m.Channel == 14 {
		bad("mesh.width", "20 on channel 14", m.Width)
	}
	if m.MFP != MFPRequired && m.MFP != MFPOptional && m.MFP != MFPOff {
		bad("mesh.mfp", "required, optional or off", m.MFP)
	}
	if m.SAE != HashToElement && m.SAE != HuntingAndPecking {
		bad("mesh.sae", "hash-to-element or hunting-and-pecking", m.SAE)
	}
	// Below, beacons alone would fill the air; above, the kernel refuses.
	if m.BeaconInterval < 20 || m.BeaconInterval > 10000 {
		bad("mesh.beacon_interval", "20 to 10000 time units", m.BeaconInterval)
	}
	// Which of them the country has, the law's table knows, not this package.
	if m.HaLowChannel < 0 || m.HaLowChannel > 255 {
		bad("mesh.halow_channel", "the number of an S1G channel, 1 to 255", m.HaLowChannel)
	}
	switch {
	case m.HaLowScheme == "":
	case m.HaLowChannel == 0:
		bad("mesh.halow_scheme", "none without a halow_channel", m.HaLowScheme)
	case !slices.Contains(HaLowSchemes, m.HaLowScheme):
		bad("mesh.halow_scheme", "one of "+strings.Join(HaLowSchemes, ", "), m.HaLowScheme)
	}
}
