package gps

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/adrianmo/go-nmea"
)

const (
	maxGSV   = 9                // sentences of a list, four satellites each
	skyLasts = 10 * time.Second // what was not said again for so long is over
)

// satellites gathers GSV and GSA sentences.
type satellites struct {
	open  map[group][]Satellite // lists of which more sentences are to come
	lists map[group]skyList
	used  map[sv]bool
	gsaAt time.Time // when the last GSA of the burst came
}

// group is what a list of GSV sentences is of: a constellation's signal.
type group struct {
	gnss   GNSS
	signal int64
}

type skyList struct {
	at   time.Time
	list []Satellite
}

type sv struct {
	gnss GNSS
	sv   int
}

func newSatellites() satellites {
	return satellites{open: map[group][]Satellite{}, lists: map[group]skyList{}, used: map[sv]bool{}}
}

// talkers are the constellations that have one of their own. GN is all of them.
var talkers = map[string]GNSS{"GP": GPS, "GL": GLONASS, "GA": Galileo, "GB": BeiDou, "BD": BeiDou, "GQ": QZSS, "QZ": QZSS, "GI": NavIC}

// systems are the constellations by the numbers of NMEA 4.10 and later.
var systems = map[int64]GNSS{1: GPS, 2: GLONASS, 3: Galileo, 4: BeiDou, 5: QZSS, 6: NavIC}

// identify tells which satellite a number of a constellation is; g is what talker or system
// say. Numbers overlap where neither says anything: those of GPS are meant then.
func identify(g GNSS, n int) (sv, bool) {
	is := func(g GNSS, n int) (sv, bool) { return sv{g, n}, n >= 1 && n <= 255 }
	switch {
	case g == GPS && n >= 33 && n <= 64, g == GLONASS && n >= 33 && n <= 64:
		return is(SBAS, n+87) // 120 and up
	case g == GPS && n >= 65 && n <= 99, g == GLONASS && n >= 65:
		return is(GLONASS, n-64)
	case g == GPS && n >= 120 && n <= 158:
		return is(SBAS, n)
	case (g == GPS || g == QZSS) && n >= 193 && n <= 202:
		return is(QZSS, n-192)
	case (g == GPS || g == Galileo) && n >= 301 && n <= 336:
		return is(Galileo, n-300)
	case (g == GPS || g == BeiDou) && n >= 401 && n <= 463:
		return is(BeiDou, n-400)
	case (g == GPS || g == BeiDou) && n >= 201 && n <= 263:
		return is(BeiDou, n-200)
	}
	return is(g, n)
}

// optional makes what a receiver may leave out a small number, or -1.
func optional(v int64, most int) int {
	if v < 0 || v > int64(most) {
		return -1
	}
	return int(v)
}

func (s *satellites) gsv(m nmea.GSV, at time.Time) {
	g, ok := talkers[m.Talker]
	if !ok {
		g = GPS
	}
	if m.TotalMessages < 1 || m.TotalMessages > maxGSV || m.MessageNumber < 1 || m.MessageNumber > m.TotalMessages || m.SignalID < 0 || m.SignalID > 15 {
		return
	}
	k := group{g, m.SignalID}
	if m.MessageNumber == 1 {
		s.open[k] = nil
	}
	list := s.open[k]
	for _, i := range m.Info {
		id, ok := identify(g, optional(i.SVPRNNumber, 1000))
		if !ok || len(list) >= 4*maxGSV {
			continue
		}
		list = append(list, Satellite{GNSS: id.gnss, SV: id.sv, Elevation: optional(i.Elevation, 90), Azimuth: optional(i.Azimuth, 360), SNR: optional(i.SNR, 99)})
	}
	s.open[k] = list
	if m.MessageNumber == m.TotalMessages {
		s.lists[k] = skyList{at, list}
		delete(s.open, k)
	}
}

// burst is how far apart the GSA sentences of one cycle may be.
const burst = 400 * time.Millisecond

func (s *satellites) gsa(m nmea.GSA, at time.Time) {
	g, ok := systems[m.SystemID]
	if !ok {
		if g, ok = talkers[m.Talker]; !ok {
			g = GPS
		}
	}
	// One sentence has room for twelve, and each constellation has its own: all of a cycle count.
	if at.Sub(s.gsaAt) > burst {
		clear(s.used)
	}
	s.gsaAt = at
	for _, t := range m.SV {
		if n, err := strconv.Atoi(t); err == nil {
			if id, ok := identify(g, n); ok && len(s.used) < 255 {
				s.used[id] = true
			}
		}
	}
}

// begin tells that a cycle begins: its GSA sentences are others.
func (s *satellites) begin() { s.gsaAt = time.Time{} }

// usedNow is how many the last GSA sentences name.
func (s *satellites) usedNow() int { return len(s.used) }

// sky is what is seen, each satellite once, by its strongest signal.
func (s *satellites) sky(at time.Time) Sky {
	best := map[sv]Satellite{}
	for k, l := range s.lists {
		if at.Sub(l.at) > skyLasts {
			delete(s.lists, k)
			continue
		}
		for _, x := range l.list {
			id := sv{x.GNSS, x.SV}
			if o, ok := best[id]; !ok || x.SNR > o.SNR {
				x.Used = s.used[id]
				best[id] = x
			}
		}
	}
	out := Sky{At: at, Satellites: make([]Satellite, 0, len(best))}
	for _, x := range best {
		out.Satellites = append(out.Satellites, x)
	}
	slices.SortFunc(out.Satellites, func(a, b Satellite) int {
		return cmp.Or(cmp.Compare(a.GNSS, b.GNSS), cmp.Compare(a.SV, b.SV))
	})
	return out
}
