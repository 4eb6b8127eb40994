package air

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"time"

	"halo.internal/lab/air/physics"
)

// Status is the air as a moment shows it.
type Status struct {
	Profile  string        `json:"profile"`
	WidthMHz float64       `json:"width_mhz"`
	Radios   []RadioStatus `json:"radios"`
	Links    []Link        `json:"links"`
	Jammers  []Jammer      `json:"jammers,omitempty"`
}

// RadioStatus is a radio that is in the air.
type RadioStatus struct {
	Name     string           `json:"name"`
	Machine  string           `json:"machine"`
	Address  string           `json:"address"`
	Position physics.Position `json:"position" doc:"metres"`
	PowerDBm float64          `json:"power_dbm" doc:"EIRP"`
	FigureDB float64          `json:"noise_figure_db"`
	FreqMHz  int              `json:"freq_mhz,omitempty" doc:"that it sent on last"`
	Group    int              `json:"group,omitempty" doc:"of a partition, from 1; 0 is the rest"`
	Frames   int              `json:"frames" doc:"that it sent"`
	Airtime  time.Duration    `json:"airtime_ns" doc:"that they took, all attempts and waiting included"`
	Share    float64          `json:"airtime_share" doc:"of the last 30 s, 0 to 1"`
}

// Link is one direction between two radios.
type Link struct {
	From      string  `json:"from"`
	To        string  `json:"to"`
	DistanceM float64 `json:"distance_m"`
	SignalDBm float64 `json:"signal_dbm"`
	SNRDB     float64 `json:"snr_db"`
	RateKbps  float64 `json:"rate_kbps,omitempty" doc:"that the sender chose last; 0 while it sent it nothing"`
	// Expected is the chance that one attempt to send 1000 octets at that rate, or
	// before there is one at the slowest, is lost.
	Expected   float64       `json:"expected_loss"`
	Cut        bool          `json:"cut,omitempty"`
	Loss       float64       `json:"loss,omitempty" doc:"that was set, 0 to 1"`
	ObstacleDB float64       `json:"obstacle_db,omitempty"`
	Disorder   Disorder      `json:"disorder,omitzero"`
	Frames     int           `json:"frames" doc:"that were meant for, or could have been heard by, the other"`
	Heard      int           `json:"heard" doc:"of them"`
	Airtime    time.Duration `json:"airtime_ns" doc:"of those that were meant for it"`
	Again      int           `json:"again,omitempty" doc:"copies of management frames, by Disorder"`
	Overtaken  int           `json:"overtaken,omitempty" doc:"management frames that came after later ones, by Disorder"`
}

// expectedOctets is the length of a frame for which a loss is foretold.
const expectedOctets = 1000

// idleFreq is the channel on which links of radios that never sent are seen.
const idleFreq = 2412

// Status returns what is in the air now, by name.
func (a *Air) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	s := Status{Profile: a.profile.Name, WidthMHz: a.profile.WidthMHz, Radios: []RadioStatus{}, Links: []Link{}}
	for _, r := range a.radios {
		st := RadioStatus{Name: r.Name, Machine: r.Machine, Address: net.HardwareAddr(r.Address).String(), Position: r.Position, PowerDBm: r.PowerDBm, FigureDB: r.FigureDB, Group: a.groups[r.Name]}
		if u := a.senders[r.Name]; u != nil {
			st.FreqMHz, st.Frames, st.Airtime, st.Share = u.freqMHz, u.frames, u.airtime, u.share(now)
		}
		s.Radios = append(s.Radios, st)
		for _, to := range a.radios {
			if to.Name != r.Name {
				s.Links = append(s.Links, a.linkStatus(r, to, cmp.Or(st.FreqMHz, idleFreq)))
			}
		}
	}
	slices.SortFunc(s.Radios, func(x, y RadioStatus) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(s.Links, func(x, y Link) int { return cmp.Or(cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To)) })
	for _, freq := range slices.Sorted(maps.Keys(a.jam)) {
		s.Jammers = append(s.Jammers, a.jam[freq])
	}
	return s
}

func (a *Air) linkStatus(from, to Radio, freqMHz int) Link {
	p := pair{from.Name, to.Name}
	c := a.counters[p]
	l := Link{
		From: from.Name, To: to.Name, DistanceM: from.Position.Distance(to.Position), Cut: a.isCut(from.Name, to.Name),
		Loss: a.loss[p], ObstacleDB: a.extra[p], Disorder: a.disorder[p], Again: c.Again, Overtaken: c.Overtaken, RateKbps: c.rate.Kbps, Frames: c.Frames, Heard: c.Heard, Airtime: c.Airtime,
	}
	l.SignalDBm, l.SNRDB = a.signal(from, to, freqMHz)
	rate := c.rate
	if rate.Kbps == 0 {
		rate = a.profile.Basic
	}
	l.Expected = 1 - (1-l.Loss)*(1-physics.FrameError(rate, l.SNRDB, expectedOctets))
	if l.Cut {
		l.Expected = 1
	}
	return l
}

// sender is what a radio took of the air.
type sender struct {
	freqMHz int // that it sent on last
	frames  int
	airtime time.Duration

	seconds [shareSeconds]time.Duration // airtime of each of the last, by Unix time
	last    int64                       // Unix time of the newest
}

// shareSeconds is how far back a share of the airtime looks.
const shareSeconds = 30

// sent notes a frame of a radio.
func (a *Air) sent(name string, freqMHz int, airtime time.Duration) {
	s := a.senders[name]
	if s == nil {
		s = &sender{}
		a.senders[name] = s
	}
	s.freqMHz = freqMHz
	s.frames++
	s.airtime += airtime
	now := time.Now()
	s.forget(now)
	s.seconds[now.Unix()%shareSeconds] += airtime
}

// forget empties the seconds that have passed since the last frame.
func (s *sender) forget(now time.Time) {
	t := now.Unix()
	for n := range min(t-s.last, shareSeconds) {
		s.seconds[(t-n)%shareSeconds] = 0
	}
	s.last = max(s.last, t)
}

func (s *sender) share(now time.Time) float64 {
	s.forget(now)
	sum := time.Duration(0)
	for _, d := range s.seconds {
		sum += d
	}
	return min(sum.Seconds()/shareSeconds, 1)
}
