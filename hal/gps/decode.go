package gps

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/adrianmo/go-nmea"
)

// Decoder makes fixes of sentences: all that name the same time are one cycle.
type Decoder struct {
	parser nmea.SentenceParser
	void   bool // the sentence at hand has no position
	unreal bool // it is of a simulator, or was typed in

	open  cycle
	dirty bool      // something came since the last fix
	last  time.Time // when a sentence came last
	sats  satellites

	date   time.Time     // midnight of the last date that was said
	dateAt time.Duration // the time of day that it was said with
	heard  time.Time     // when that was

	Malformed uint64 // sentences with a right checksum and wrong contents
}

// cycle is what was said with one time of day.
type cycle struct {
	Fix
	tod   time.Duration // since midnight, UTC; negative: none was said
	dated bool
	said  bool // some sentence has a position that is valid
	voids bool // some sentence says that there is none
	gsa   Mode // 0: none came
	knots float64
	count int64 // of satellites, as GGA and GNS have it
}

// NewDecoder returns one that has heard nothing.
func NewDecoder() *Decoder {
	d := &Decoder{open: newCycle(time.Time{}), sats: newSatellites()}
	d.parser = nmea.SentenceParser{
		NaNForEmptyFloat: true, MaxInt64ForEmptyInt: true,
		OnBaseSentence: d.prepare,
		CheckCRC:       func(nmea.BaseSentence, string) error { return nil }, // Lines has
		CustomParsers:  map[string]nmea.ParserFunc{"GST": parseGST},
	}
	return d
}

func newCycle(at time.Time) cycle {
	c := cycle{Fix: blank(), tod: -1, knots: math.NaN()}
	c.At = at
	return c
}

// gst is the receiver's statistics, which the library has no type for.
type gst struct {
	nmea.BaseSentence
	at            nmea.Time
	lat, lon, alt float64
}

// parseGST reads $--GST,hhmmss.ss,rms,major,minor,orientation,lat,lon,alt: metres, one
// standard deviation (NMEA 0183, GNSS pseudorange error statistics).
func parseGST(s nmea.BaseSentence) (nmea.Sentence, error) {
	p := nmea.NewParser(s, nmea.WithNaNForEmptyFloat(true))
	g := gst{BaseSentence: s, at: p.Time(0, "time"), lat: p.Float64(5, "latitude"), lon: p.Float64(6, "longitude"), alt: p.Float64(7, "altitude")}
	return g, p.Err()
}

// places are the indexes of latitude, in the sentences that have a position.
var places = map[string]int{nmea.TypeGGA: 1, nmea.TypeRMC: 2, nmea.TypeGLL: 0, nmea.TypeGNS: 1}

// fields is how many the library insists on.
var fields = map[string]int{
	nmea.TypeGGA: 14, nmea.TypeRMC: 11, nmea.TypeGSA: 17, nmea.TypeGSV: 3, nmea.TypeVTG: 8,
	nmea.TypeZDA: 6, nmea.TypeGLL: 6, nmea.TypeGNS: 12, "GST": 8,
}

// errSkipped: a sentence that says nothing of a position.
var errSkipped = errors.New("skipped")

// prepare has the library read what it would refuse: positions that are empty because there
// is none, and the qualities of simulators.
func (d *Decoder) prepare(s *nmea.BaseSentence) error {
	if fields[s.Type] == 0 || len(s.Talker) != 2 || s.Raw[0] != '$' {
		return errSkipped
	}
	d.void, d.unreal = false, false
	for len(s.Fields) < fields[s.Type] {
		s.Fields = append(s.Fields, "") // older standards, and receivers that save octets
	}
	switch {
	case s.Type == nmea.TypeGSA && len(s.Fields) > 17 && (len(s.Fields[17]) != 1 || hex(s.Fields[17][0]) < 0):
		s.Fields = s.Fields[:17] // something of the maker's own, in place of the system
	case s.Type == nmea.TypeRMC && !slices.Contains([]string{"", nmea.West, nmea.East}, s.Fields[10]):
		s.Fields = slices.Insert(s.Fields, 10, "") // the mode follows the variation at once
	}
	i, ok := places[s.Type]
	if !ok || len(s.Fields) < i+4 {
		return nil
	}
	if s.Fields[i] == "" || s.Fields[i+2] == "" {
		d.void = true
		s.Fields[i], s.Fields[i+1], s.Fields[i+2], s.Fields[i+3] = "0000.0", "N", "00000.0", "E"
	}
	if s.Type == nmea.TypeGGA && len(s.Fields) > 5 && (s.Fields[5] == "7" || s.Fields[5] == "8") {
		d.unreal, s.Fields[5] = true, nmea.GPS
	}
	return nil
}

// Sentence takes a valid one, that came at that time. A fix that it ends is returned: the
// cycle before it. The error says what is wrong with the sentence.
func (d *Decoder) Sentence(line string, at time.Time) (f Fix, s Sky, ended bool, err error) {
	// An address of the right form is enough to see whether the sentence is of interest:
	// what receivers send most, of their own, costs nothing.
	if len(line) < 7 || line[6] != ',' || fields[line[3:6]] == 0 {
		return f, s, false, nil
	}
	// The library would take what is between backslashes for a tag block.
	if strings.ContainsRune(line, '\\') {
		d.Malformed++
		return f, s, false, fmt.Errorf("sentence %.6s: expected no backslash", line)
	}
	m, err := d.parser.Parse(line)
	if errors.Is(err, errSkipped) {
		return f, s, false, nil
	}
	if err != nil {
		d.Malformed++
		return f, s, false, fmt.Errorf("sentence %.6s: %w", line, err)
	}
	t, timed := timeOf(m)
	if timed {
		if d.open.tod >= 0 && t != d.open.tod {
			f, s, ended = d.Flush()
		}
		if d.open.tod >= 0 && t != d.open.tod || at.Sub(d.open.At) > burst && d.open.tod < 0 {
			d.open = newCycle(at)
			d.sats.begin()
		}
		d.open.tod = t // what came just before the first time of all belongs to it
	} else if d.open.tod < 0 && at.Sub(d.open.At) > burst {
		d.open = newCycle(at) // a receiver that has no time yet
	}
	d.last = at
	// Satellites that are told of before the next cycle's time do not make this one new.
	d.dirty = d.dirty || timed || at.Sub(d.open.At) < lag
	d.take(m, at)
	return f, s, ended, nil
}

// lag is how long after the beginning of a cycle something without a time belongs to it.
const lag = 900 * time.Millisecond

// timeOf returns the time of day that a sentence is of.
func timeOf(m nmea.Sentence) (time.Duration, bool) {
	var t nmea.Time
	switch m := m.(type) {
	case nmea.GGA:
		t = m.Time
	case nmea.RMC:
		t = m.Time
	case nmea.GLL:
		t = m.Time
	case nmea.GNS:
		t = m.Time
	case nmea.ZDA:
		t = m.Time
	case gst:
		t = m.at
	}
	if !t.Valid || t.Hour > 23 || t.Minute > 59 || t.Second > 60 {
		return 0, false
	}
	return time.Duration(t.Hour)*time.Hour + time.Duration(t.Minute)*time.Minute + time.Duration(t.Second)*time.Second + time.Duration(t.Millisecond)*time.Millisecond, true
}

func (d *Decoder) take(m nmea.Sentence, at time.Time) {
	c := &d.open
	switch m := m.(type) {
	case nmea.GGA:
		d.position(m.Latitude, m.Longitude, m.FixQuality != nmea.Invalid && m.FixQuality != "", qualities[m.FixQuality])
		c.HDOP = or(m.HDOP, c.HDOP)
		c.Alt, c.Geoid = or(m.Altitude, c.Alt), or(m.Separation, c.Geoid)
		c.count = m.NumSatellites
	case nmea.GNS:
		d.position(m.Latitude, m.Longitude, anyMode(m.Mode), modes(m.Mode))
		c.HDOP = or(m.HDOP, c.HDOP)
		c.Alt, c.Geoid = or(m.Altitude, c.Alt), or(m.Separation, c.Geoid)
		c.count = m.SVs
	case nmea.RMC:
		d.position(m.Latitude, m.Longitude, m.Validity == nmea.ValidRMC, faa[m.FFAMode])
		d.faa(m.FFAMode)
		c.knots, c.Track = or(m.Speed, c.knots), or(m.Course, c.Track)
		if m.Date.Valid {
			d.dated(year(m.Date.YY), m.Date.MM, m.Date.DD, at)
		}
	case nmea.GLL:
		d.position(m.Latitude, m.Longitude, m.Validity == nmea.ValidGLL, faa[m.FFAMode])
		d.faa(m.FFAMode)
	case nmea.VTG:
		c.knots, c.Track = or(m.GroundSpeedKnots, c.knots), or(m.TrueTrack, c.Track)
	case nmea.ZDA:
		if m.Year <= 9999 && m.Month <= 12 && m.Day <= 31 && m.Day > 0 && m.Month > 0 && m.Year > 0 { // empty ones are huge
			d.dated(int(m.Year), int(m.Month), int(m.Day), at)
		}
	case nmea.GSA:
		d.sats.gsa(m, at)
		if v, ok := fixTypes[m.FixType]; ok {
			c.gsa = max(c.gsa, v) // a constellation of which nothing is used may say that there is none
		}
		c.PDOP, c.HDOP, c.VDOP = or(m.PDOP, c.PDOP), or(m.HDOP, c.HDOP), or(m.VDOP, c.VDOP)
	case nmea.GSV:
		d.sats.gsv(m, at)
	case gst:
		c.SigmaLat, c.SigmaLon, c.SigmaAlt = or(m.lat, c.SigmaLat), or(m.lon, c.SigmaLon), or(m.alt, c.SigmaAlt)
	}
}

// or returns v, or what there was before where the sentence left it out.
func or(v, before float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return before
	}
	return v
}

// position takes what one sentence says of it. Where two of a cycle disagree, the finer one
// is from GGA and GNS, and neither knows less than RMC and GLL.
func (d *Decoder) position(lat, lon float64, valid bool, q Quality) {
	c := &d.open
	if d.unreal {
		c.simulated = true
	}
	if d.void || !valid {
		c.voids = true
		return
	}
	c.said = true
	c.Lat, c.Lon = lat, lon
	if rank[q] > rank[c.Quality] {
		c.Quality = q
	}
}

// rank orders qualities: sentences that say less say "autonomous".
var rank = map[Quality]int{"": 0, Autonomous: 1, Differential: 2, Precise: 3, Estimated: 4, RTKFloat: 5, RTK: 6}

var qualities = map[string]Quality{nmea.GPS: Autonomous, nmea.DGPS: Differential, nmea.PPS: Precise, nmea.RTK: RTK, nmea.FRTK: RTKFloat, nmea.EST: Estimated}

var fixTypes = map[string]Mode{nmea.FixNone: NoFix, nmea.Fix2D: Fix2D, nmea.Fix3D: Fix3D}

// faa are the qualities of the mode indicator of NMEA 2.3; empty of those before.
var faa = map[string]Quality{
	"": Autonomous, nmea.FAAModeAutonomous: Autonomous, nmea.FAAModeDifferential: Differential, nmea.FAAModePrecise: Precise,
	nmea.FAAModeRTKInteger: RTK, nmea.FAAModeRTKFloat: RTKFloat, nmea.FAAModeEstimated: Estimated,
}

func (d *Decoder) faa(mode string) {
	switch mode {
	case nmea.FAAModeManualInput, nmea.FAAModeSimulated:
		d.open.simulated = true
	case nmea.FAAModeDataNotValid:
		d.open.voids = true
	}
}

func anyMode(list []string) bool {
	for _, m := range list {
		if m != nmea.NoFixGNS {
			return true
		}
	}
	return false
}

// modes is the best quality of several constellations'.
func modes(list []string) (best Quality) {
	for _, m := range list {
		if q := faa[m]; rank[q] > rank[best] {
			best = q
		}
	}
	return best
}

// year completes one of two digits: GPS began in 1980.
func year(yy int) int {
	if yy >= 80 {
		return 1900 + yy
	}
	return 2000 + yy
}

func (d *Decoder) dated(y, m, day int, at time.Time) {
	t := time.Date(y, time.Month(m), day, 0, 0, 0, 0, time.UTC)
	if t.Day() != day || int(t.Month()) != m || d.open.tod < 0 {
		return // the 31st of a month without one
	}
	d.date, d.dateAt, d.heard = t, d.open.tod, at
	d.open.dated = true
}

// dateLasts is how long a date is good for cycles that say none.
const dateLasts = 10 * time.Minute

// when is the time of the open cycle, as far as it is known.
func (d *Decoder) when() time.Time {
	c := d.open
	if c.tod < 0 || d.date.IsZero() || c.At.Sub(d.heard) > dateLasts {
		return time.Time{}
	}
	t := d.date.Add(c.tod)
	if !c.dated && c.tod < d.dateAt-12*time.Hour {
		t = t.AddDate(0, 0, 1) // midnight has passed since
	}
	return t
}

// Flush returns what was said so far in the open cycle, if that is new.
func (d *Decoder) Flush() (f Fix, s Sky, ok bool) {
	if !d.dirty {
		return f, s, false
	}
	d.dirty = false
	c := d.open
	f = c.Fix
	f.Time = d.when()
	s = d.sats.sky(d.last)
	f.Seen = len(s.Satellites)
	// GGA has two digits, and some receivers never say more than twelve there.
	if n := optional(c.count, 255); n > 0 {
		f.Used = n
	}
	f.Used = max(f.Used, d.sats.usedNow())
	if c.said && !c.voids && c.gsa != NoFix {
		f.Mode = Fix2D
		if c.gsa == Fix3D || c.gsa == 0 && !math.IsNaN(c.Alt) {
			f.Mode = Fix3D
		}
		f.Speed = c.knots * 1852 / 3600
	} else {
		f.Lat, f.Lon, f.Alt, f.Speed, f.Track, f.Quality = math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN(), ""
	}
	if f.Mode == Fix2D {
		f.Alt = math.NaN()
	}
	f.estimate()
	return f, s, true
}
