package air

import (
	"fmt"

	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
)

// Profile says what kind of radio the simulated ones stand for. The driver's
// rates keep their numbers; what they mean here is up to the profile.
type Profile struct {
	Name     string
	WidthMHz float64
	FreqMHz  float64 // of the path loss; 0 is the frame's own channel
	Timing   physics.Timing
	Basic    physics.Rate // of acknowledgements
	rate     func(freqMHz int, kind hwsim.Kind, number int) physics.Rate
}

// Named returns the profile of that name: wifi, or halow-1, halow-2, halow-4,
// halow-8 by the width in MHz.
func Named(name string) (Profile, error) {
	all := []Profile{WiFi(), HaLow(1), HaLow(2), HaLow(4), HaLow(8)}
	var names []string
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Profile{}, fmt.Errorf("profile: expected one of %v, got %q", names, name)
}

// WiFi is Wi-Fi as the driver has it, one stream over 20 MHz.
func WiFi() Profile {
	ofdm, dsss := physics.OFDM(), physics.DSSS()
	return Profile{Name: "wifi", WidthMHz: 20, Timing: physics.WiFi(), Basic: ofdm[0], rate: func(freq int, kind hwsim.Kind, n int) physics.Rate {
		if kind != hwsim.Legacy {
			return physics.HT()[modulation(freq, kind, n)]
		}
		if dsssBand(freq) && n < len(dsss) {
			return dsss[max(n, 0)]
		}
		return ofdm[legacy(freq, n)]
	}}
}

// HaLow is 802.11ah near 915 MHz, one stream, over 1, 2, 4 or 8 MHz with the long
// guard interval: each rate of the driver stands for the MCS of its modulation
// and code, and the four slowest for MCS 10, or MCS 0 where there is none.
func HaLow(widthMHz int) Profile {
	rates := physics.S1G(widthMHz, false)
	slowest, ok := rates[10]
	if !ok {
		slowest = rates[0]
	}
	// MCS of the rates of 802.11g. 9 Mbit/s has no counterpart: BPSK with more code.
	ofdm := []int{0, 0, 1, 2, 3, 4, 5, 6}
	return Profile{Name: fmt.Sprintf("halow-%d", widthMHz), WidthMHz: float64(widthMHz), FreqMHz: 915, Timing: physics.HaLow(widthMHz), Basic: slowest, rate: func(freq int, kind hwsim.Kind, n int) physics.Rate {
		switch {
		case kind != hwsim.Legacy:
			return rates[modulation(freq, kind, n)]
		case dsssBand(freq) && n < 4:
			return slowest
		}
		return rates[ofdm[legacy(freq, n)]]
	}}
}

// dsssBand tells whether the driver's rates begin with the four of 802.11b.
func dsssBand(freqMHz int) bool { return freqMHz < 3000 }

// legacy is the place of a rate among the eight of OFDM.
func legacy(freqMHz, n int) int {
	if dsssBand(freqMHz) {
		n -= 4
	}
	return min(max(n, 0), 7)
}

// slowestOFDM is the number of the slowest of them.
func slowestOFDM(freqMHz int) int8 {
	if dsssBand(freqMHz) {
		return 4
	}
	return 0
}

// modulation is the MCS of one stream, 0 to 7.
func modulation(_ int, kind hwsim.Kind, n int) int {
	if kind == hwsim.VHT {
		return min(n&0xf, 7)
	}
	return n & 7
}

// delivered is the number under which a receiver's driver takes a frame: it knows
// its legacy rates only.
func delivered(freqMHz int, kind hwsim.Kind, n int) int {
	first, last := 0, 7
	if dsssBand(freqMHz) {
		first, last = 4, 11
	}
	if kind == hwsim.Legacy {
		return min(max(n, 0), last)
	}
	return first + modulation(freqMHz, kind, n)
}
