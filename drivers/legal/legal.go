// Package legal computes what the law of a country lets a radio do: on which
// channel, how wide, with what power and for how much of an hour; each answer
// with its reasons and where they are from. It also enforces: a channel or a
// power that is not allowed is an error, and Account keeps the airtime of a
// duty cycle.
//
// For S1G (HaLow) the rules are a table here, since the kernel's database has
// none; of what its sources say the strictest counts. For Wi-Fi the kernel's
// regulatory answer counts, to which it holds all drivers itself. None of it is
// legal advice: whoever puts a mast up answers for it.
package legal

import (
	"errors"
	"fmt"
	"strings"
)

// ErrRefused is wrapped by all refusals.
var ErrRefused = errors.New("not allowed")

// DBm is a power in hundredths of a dBm, as the kernel counts it (mBm); gains
// and losses are hundredths of a dB.
type DBm int

// String returns e.g. "16.13 dBm".
func (p DBm) String() string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", float64(p)/100), "0"), ".") + " dBm"
}

// Reason is one part of an answer and where it is known from.
type Reason struct {
	Text   string
	Source string
}

// String returns the text with its source.
func (r Reason) String() string { return r.Text + " (" + r.Source + ")" }

// Answer is what is allowed on one channel.
type Answer struct {
	Country      string // whose rules hold
	Channel      string // for people
	CentreKHz    int    // of an S1G channel that the country has
	WidthKHz     int    // likewise
	Allowed      bool   // to send on the channel at all
	MaxEIRP      DBm    // of what leaves the antenna
	MaxConducted DBm    // of what leaves the radio, with its own limit where HasConducted
	HasConducted bool
	MaxWidthKHz  int       // of any channel there
	Duty         DutyCycle // of an hour that a station may send; Always without a limit
	Reasons      []Reason
}

// DutyCycle is a part of time in hundredths of a percent.
type DutyCycle int

// Always is no limit.
const Always DutyCycle = 10000

// Percent returns it in percent.
func (d DutyCycle) Percent() float64 { return float64(d) / 100 }

// String returns e.g. "2.8 %".
func (d DutyCycle) String() string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", d.Percent()), "0"), ".") + " %"
}

func (a *Answer) because(source, format string, args ...any) {
	a.Reasons = append(a.Reasons, Reason{fmt.Sprintf(format, args...), source})
}

// Station is what a radio is set to and what is between it and the air.
type Station struct {
	Conducted DBm // at the radio's connector
	Gain      DBm // of the antenna over an isotropic one, in hundredths of a dBi
	Loss      DBm // of the cable, at least 0
}

// EIRP is the power that leaves the antenna where it is strongest: conducted
// power and antenna gain less cable loss.
func (s Station) EIRP() DBm { return s.Conducted + s.Gain - s.Loss }

// MostConducted returns the most power at the connector that stays within the
// answer, with an antenna and a cable.
func (a Answer) MostConducted(gain, loss DBm) DBm {
	most := a.MaxEIRP - gain + loss
	if a.HasConducted {
		most = min(most, a.MaxConducted)
	}
	return most
}

// Check refuses a station that is not allowed: the error wraps ErrRefused and
// says what would be.
func (a Answer) Check(s Station) error {
	if !a.Allowed {
		return a.refuse("%s in %s", a.Channel, a.Country)
	}
	if s.Loss < 0 {
		return a.refuse("a cable that amplifies (loss %d)", s.Loss)
	}
	most := a.MostConducted(s.Gain, s.Loss)
	if a.HasConducted && s.Conducted > a.MaxConducted {
		return a.refuse("%s at the connector on %s in %s, of %s at most: set at most %s", s.Conducted, a.Channel, a.Country, a.MaxConducted, most)
	}
	if e := s.EIRP(); e > a.MaxEIRP {
		return a.refuse("%s from the antenna (%s at the connector) on %s in %s, of %s at most: set at most %s", e, s.Conducted, a.Channel, a.Country, a.MaxEIRP, most)
	}
	return nil
}

func (a Answer) refuse(format string, args ...any) error {
	var why []string
	for _, r := range a.Reasons {
		why = append(why, r.String())
	}
	return fmt.Errorf("%w: %s: %s", ErrRefused, fmt.Sprintf(format, args...), strings.Join(why, "; "))
}
