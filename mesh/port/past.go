package port

import (
	"context"
	"time"
)

// A gateway looks on all its ports for a server upstream, and where it finds neither
// that nor members, it serves clients. What answers first is not always what belongs
// there: when power comes back to a whole site, the gateway may be up before the nodes
// are, or before the site's router is. So it is remembered what a port has proved to be,
// and that gets a longer time to show up again. Nothing else follows from it: who proves
// a membership is a member there at once, and what is in the bundle holds.

// Past is what a port has proved to be, as far as that counts still.
type Past struct {
	Mesh   bool // it carried the mesh, and has not led upstream for a week on end since
	Uplink bool // it led upstream, and has neither carried the mesh since nor served clients for an hour on end; after Mesh, it did for an hour on end
}

// Memory keeps the past of ports over restarts, by hardware address as
// net.HardwareAddr.String has it. Its methods must not block.
type Memory interface {
	// Past returns the zero Past for a port that is not known.
	Past(mac string) Past
	Remember(mac string, past Past)
}

// past is that of this port. A port that is pinned has none.
func (p *port) past() Past {
	if p.ps.c.Memory == nil || p.pin != "" {
		return Past{}
	}
	return p.ps.c.Memory.Past(p.mac)
}

func (p *port) remember(past Past) {
	if p.ps.c.Memory != nil && p.pin == "" {
		p.ps.c.Memory.Remember(p.mac, past)
	}
}

// keepPast remembers that the port leads upstream, the more surely the longer it does,
// until ctx ends.
func (p *port) keepPast(ctx context.Context) {
	began := time.Now()
	for _, step := range [...]struct {
		after time.Duration
		past  func(Past) Past
	}{
		{p.ps.timing.proved, func(was Past) Past { return Past{was.Mesh, was.Uplink || !was.Mesh} }},
		{p.ps.timing.lasting, func(was Past) Past { return Past{was.Mesh, true} }},
		{p.ps.timing.forget, func(Past) Past { return Past{Uplink: true} }},
	} {
		if !sleep(ctx, time.Until(began.Add(step.after))) {
			return
		}
		p.remember(step.past(p.past()))
	}
}

// waits returns until when a server upstream is not believed to be this port's, and
// whether that is still to come: members that were here are given so long to be heard.
func (s *search) waits(now time.Time) (until time.Time, ok bool) {
	if past := s.past(); !past.Mesh || past.Uplink {
		return time.Time{}, false
	}
	if s.alone.IsZero() {
		return now.Add(s.ps.timing.loyal), true
	}
	until = s.alone.Add(s.ps.timing.loyal)
	return until, now.Before(until)
}
