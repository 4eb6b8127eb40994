package gps

import (
	"fmt"
	"math"
	"time"
)

// Reason is why something that a receiver said was dropped.
type Reason string

// Reasons.
const (
	ReasonZero      Reason = "zero"          // 0° north, 0° east: what software says that knows none
	ReasonRange     Reason = "out-of-range"  // no place on Earth, or no height
	ReasonDate      Reason = "date"          // before this software was built, or long after
	ReasonRollover  Reason = "week-rollover" // 1024 weeks early; the position counts, the time does not
	ReasonSpeed     Reason = "speed"
	ReasonJump      Reason = "jump"
	ReasonDilution  Reason = "dilution"  // the satellites stand too badly
	ReasonFrozen    Reason = "frozen"    // the same time again and again
	ReasonSimulated Reason = "simulated" // says the receiver itself
	ReasonStale     Reason = "stale"     // nothing came any more
)

// Reasons are all there are, in the order in which they are looked for.
var Reasons = []Reason{ReasonSimulated, ReasonRange, ReasonZero, ReasonDilution, ReasonSpeed, ReasonDate, ReasonFrozen, ReasonJump, ReasonRollover, ReasonStale}

// Limits of what is believed.
const (
	// maxSpeed is what receivers have to stop at by export law (1000 knots, the COCOM limit).
	maxSpeed = 1000 * 1852.0 / 3600 // m/s
	minAlt   = -1000                // metres: below the shore of the Dead Sea, in a mine
	maxAlt   = 60_000               // above every balloon
	maxHDOP  = 50                   // beyond 20 is called poor; 99.99 is how receivers say that they don't know
	// nullIsland is how near to 0/0, in degrees, nobody is believed to be.
	nullIsland = 0.001
	// jumpMargin is how far, in metres, a fix may be off without being a jump, beside speed
	// and its own accuracy.
	jumpMargin = 100
	// moved is how many fixes in a row that agree with each other make a jump the truth: the
	// place before was the wrong one, or the device was carried while the receiver was out.
	moved = 10
	// frozenAfter is how long a receiver may say the same time.
	frozenAfter = 3 * time.Second
)

// rollover is the time after which the week number of GPS begins anew (10 bits, IS-GPS-200).
const rollover = 1024 * 7 * 24 * time.Hour

// Judge drops what can't be. It is of one receiver.
type Judge struct {
	earliest, latest time.Time

	last   Fix // the last one that was believed; zero: none
	wild   Fix // the last one that was too far from it
	streak int // of those, in a row, that are near to each other

	dropped map[Reason]uint64
	why     string // in words, of the last one
	whyAt   time.Time
}

// NewJudge returns one that believes dates between those.
func NewJudge(earliest, latest time.Time) *Judge {
	return &Judge{earliest: earliest, latest: latest, dropped: map[Reason]uint64{}}
}

// Judge returns a fix as it is to be taken at that time: what is dropped of it has no
// position (Mode NoFix), or no time, and the reason says why.
func (j *Judge) Judge(f Fix, now time.Time) (Fix, Reason) {
	if f.Mode == NoFix {
		if r, _ := j.date(f); r != "" {
			f.Time = time.Time{} // receivers begin with a date of their own: not worth a word
		}
		return f, ""
	}
	reason, why := j.place(f, now)
	if reason == "" {
		if reason, why = j.date(f); reason == ReasonRollover {
			j.drop(reason, why, now)
			f.Time = time.Time{}
			return j.track(f, now, reason)
		}
	}
	if reason != "" {
		j.drop(reason, why, now)
		return void(f), reason
	}
	return j.track(f, now, "")
}

// void is a fix without its position and time.
func void(f Fix) Fix {
	v := blank()
	v.At, v.Used, v.Seen, v.PDOP, v.HDOP, v.VDOP = f.At, f.Used, f.Seen, f.PDOP, f.HDOP, f.VDOP
	return v
}

// place looks at the fix alone.
func (j *Judge) place(f Fix, now time.Time) (Reason, string) {
	switch {
	case f.simulated:
		return ReasonSimulated, "the receiver says that it was told, or made up, the position"
	case !(math.Abs(f.Lat) <= 90 && math.Abs(f.Lon) <= 180): // not a number is neither
		return ReasonRange, fmt.Sprintf("expected a place on Earth, got %.4f, %.4f", f.Lat, f.Lon)
	case f.Alt < minAlt || f.Alt > maxAlt:
		return ReasonRange, fmt.Sprintf("expected an altitude of %d to %d m, got %.0f", minAlt, maxAlt, f.Alt)
	case math.Abs(f.Lat) < nullIsland && math.Abs(f.Lon) < nullIsland:
		return ReasonZero, "0° north, 0° east is what receivers say that know nothing"
	case f.HDOP >= maxHDOP:
		return ReasonDilution, fmt.Sprintf("expected a horizontal dilution of precision below %d, got %.1f", maxHDOP, f.HDOP)
	case f.Speed > maxSpeed:
		return ReasonSpeed, fmt.Sprintf("expected at most %.0f m/s, got %.0f", maxSpeed, f.Speed)
	case now.Sub(f.At) > frozenAfter:
		return ReasonFrozen, fmt.Sprintf("the receiver says %s for %s now", f.Time.UTC().Format(time.TimeOnly), now.Sub(f.At).Round(time.Second))
	}
	return "", ""
}

func (j *Judge) date(f Fix) (Reason, string) {
	if f.Time.IsZero() || !f.Time.Before(j.earliest) && !f.Time.After(j.latest) {
		return "", ""
	}
	expected := fmt.Sprintf("expected a date of %s to %s, got %s", j.earliest.UTC().Format(time.DateOnly), j.latest.UTC().Format(time.DateOnly), f.Time.UTC().Format(time.DateOnly))
	if t := f.Time.Add(rollover); !t.Before(j.earliest) && !t.After(j.latest) {
		return ReasonRollover, expected + ": the receiver counts 1024 weeks too few, as old ones do"
	}
	return ReasonDate, expected
}

// track compares a fix with those before. reason is what it has already, of its time.
func (j *Judge) track(f Fix, now time.Time, reason Reason) (Fix, Reason) {
	if j.last.Mode != 0 && far(j.last, f) {
		if j.streak > 0 && far(j.wild, f) {
			j.streak = 0
		}
		j.wild = f
		if j.streak++; j.streak < moved {
			j.drop(ReasonJump, fmt.Sprintf("expected a place that can be reached from the last one, got one %.1f km away after %s",
				Distance(j.last.Lat, j.last.Lon, f.Lat, f.Lon)/1000, f.At.Sub(j.last.At).Round(100*time.Millisecond)), now)
			return void(f), ReasonJump
		}
	}
	j.last, j.streak = f, 0
	return f, reason
}

// far tells whether nothing gets from a to b in the time between.
func far(a, b Fix) bool {
	margin := jumpMargin + or(a.Accuracy, 0) + or(b.Accuracy, 0)
	return Distance(a.Lat, a.Lon, b.Lat, b.Lon) > margin+maxSpeed*b.At.Sub(a.At).Abs().Seconds()
}

// Stale notes that nothing has come for so long.
func (j *Judge) Stale(d time.Duration, now time.Time) {
	j.drop(ReasonStale, fmt.Sprintf("no sentence has come for %s", d), now)
}

func (j *Judge) drop(r Reason, why string, now time.Time) {
	j.dropped[r]++
	j.why, j.whyAt = string(r)+": "+why, now
}

// radius of the Earth, metres: the mean of IUGG.
const radius = 6_371_008.8

// Distance is how far two places are apart over ground, in metres, by a sphere: 0.5 % off
// at most.
func Distance(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	a := math.Sin((lat2 - lat1) * rad / 2)
	b := math.Sin((lon2 - lon1) * rad / 2)
	h := a*a + math.Cos(lat1*rad)*math.Cos(lat2*rad)*b*b
	return 2 * radius * math.Asin(math.Min(1, math.Sqrt(h)))
}
