package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"halo.internal/model"
)

// While the gateway's clock is a guess, stamps that are far from its time may be right: a
// node's GPS knows better. But each week takes a file, and any node can make up hundreds of
// them. So a node may have readings in as many weeks that are far as are kept of those that
// are near, and a few; which those are is told from the files, so that no restart gives it
// more. What is beyond is the node's own loss.
const fewWeeks = 8

// removeEvery is how far apart weeks are removed for what the gateway's clock says of them.
const removeEvery = time.Hour

// refuseFar finds which far weeks are more than a node may have. The caller holds
// s.tending.
func (s *Store) refuseFar(ctx context.Context, m *move) {
	low, high := s.near()
	most := int(s.Retention().Keep.Hour.Milliseconds()/weekMS) + fewWeeks
	for i := range m.sources {
		p := &m.sources[i]
		for _, h := range p.head {
			if h.first >= low && h.last < high {
				continue
			}
			for w := range m.weeksOf(p, h) {
				if w.end() > low && w.begin() < high {
					continue
				}
				have := s.farOf(ctx, p.src.node, low, high)
				switch {
				case have[w]:
				case len(have) < most:
					have[w] = true
				default:
					if p.refused == nil {
						p.refused = map[week]bool{}
					}
					p.refused[w] = true
				}
			}
		}
	}
}

// farOf returns in which far weeks there is something of a node. The files are asked the
// first time that somebody has such stamps.
func (s *Store) farOf(ctx context.Context, node string, low, high int64) map[week]bool {
	if s.far == nil {
		s.far = map[string]map[week]bool{}
		for _, w := range s.weeks.list() {
			if w.end() > low && w.begin() < high {
				continue
			}
			f, err := s.weeks.acquire(ctx, w, false)
			if err != nil { // it counts for nobody until it is repaired
				s.Log.Warn("a week of telemetry cannot be read", "week", w, "err", err)
				continue
			}
			for node := range f.nodes {
				s.addFar(node, w)
			}
			s.weeks.release(f)
		}
	}
	if s.far[node] == nil {
		s.far[node] = map[week]bool{}
	}
	return s.far[node]
}

func (s *Store) addFar(node string, w week) {
	if s.far[node] == nil {
		s.far[node] = map[week]bool{}
	}
	s.far[node][w] = true
}

// dropImpossible removes a week that is of the future by more than any clock of ours is
// ahead, once the gateway's own is more than a guess: the furthest one, and one an hour,
// since this clock may be the one that is wrong. The caller holds s.tending.
func (s *Store) dropImpossible() error {
	list := s.weeks.list()
	if len(list) == 0 {
		return nil
	}
	w := list[len(list)-1]
	if w.begin() <= s.Ahead().Add(maxAhead).UnixMilli() || !s.removed.IsZero() && s.ticks().Sub(s.removed) < removeEvery {
		return nil
	}
	if err := s.unlink(w); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %v, which is of the future: %w", w, err)
	}
	s.removed = s.ticks()
	s.Events.Add("telemetry.misdated", model.Warning, "", fmt.Sprintf("the telemetry of week %v is of the future, by the gateway's clock, and was removed", w), map[string]string{"week": w.String()})
	return nil
}
