package ether

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Condition is what a line does to the frames on it. The zero value is a
// perfect line.
type Condition struct {
	Loss   float64       `json:"loss" doc:"share of frames that is lost, 0 to 1"`
	Delay  time.Duration `json:"delay_ns"`
	Jitter time.Duration `json:"jitter_ns" doc:"added to the delay, at random from 0 to this"`
	Rate   int64         `json:"rate_bps" doc:"bits per second each way; 0 is without limit"`
}

// maxDelay bounds how long the switch holds a frame.
const maxDelay = 10 * time.Second

// Check tells all that is wrong with the values.
func (c Condition) Check() error {
	var errs []error
	if !(c.Loss >= 0 && c.Loss <= 1) {
		errs = append(errs, fmt.Errorf("loss: expected 0 to 1, got %v", c.Loss))
	}
	if c.Delay < 0 || c.Delay > maxDelay {
		errs = append(errs, fmt.Errorf("delay: expected 0 to %s, got %s", maxDelay, c.Delay))
	}
	if c.Jitter < 0 || c.Jitter > maxDelay {
		errs = append(errs, fmt.Errorf("jitter: expected 0 to %s, got %s", maxDelay, c.Jitter))
	}
	if c.Rate < 0 {
		errs = append(errs, fmt.Errorf("rate: expected bits per second, or 0 for no limit, got %d", c.Rate))
	}
	return errors.Join(errs...)
}

// line is one direction between two cables.
type line struct {
	Condition
	shaper
	last time.Time // when the frame that was queued last is due
}

// shaper serialises the frames on a line of limited rate.
type shaper struct{ free time.Time }

// pass returns when a frame that is at the line's start at arrives has left its
// end, or false when too many wait before it.
func (s *shaper) pass(now, arrives time.Time, octets int, rate int64) (time.Time, bool) {
	if rate == 0 {
		return arrives, true
	}
	if s.free.Before(arrives) {
		s.free = arrives
	}
	if s.free.Sub(now) > queueTime {
		return arrives, false
	}
	s.free = s.free.Add(time.Duration(float64(octets*8) / float64(rate) * float64(time.Second)))
	return s.free, true
}

// SetLink sets the condition of a cable, for both directions.
func (s *Switch) SetLink(name string, c Condition) error {
	if err := c.Check(); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.link(name)
	if err != nil {
		return err
	}
	l.line = c
	return nil
}

// SetPair sets the condition between two cables, for both directions, in
// addition to that of the cables themselves.
func (s *Switch) SetPair(a, b string, c Condition) error {
	if err := c.Check(); err != nil {
		return fmt.Errorf("link %s to %s: %w", a, b, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range [2]string{a, b} {
		if _, err := s.link(name); err != nil {
			return err
		}
	}
	if a == b {
		return fmt.Errorf("link %s to %s: expected two different ones", a, b)
	}
	for _, p := range [2]pair{{a, b}, {b, a}} {
		if s.lines[p] == nil {
			s.lines[p] = &line{}
		}
		s.lines[p].Condition = c
	}
	return nil
}

// Partition lets frames pass within each group alone. Cables in no group are
// one group together.
func (s *Switch) Partition(groups ...[]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := map[string]int{}
	for i, g := range groups {
		for _, name := range g {
			if _, err := s.link(name); err != nil {
				return err
			}
			if _, twice := of[name]; twice {
				return fmt.Errorf("partition: %s is in two groups", name)
			}
			of[name] = i + 1
		}
	}
	s.groups = of
	return nil
}

// Heal ends a partition.
func (s *Switch) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = nil
}

// LinkState is a cable as Status sees it.
type LinkState struct {
	Plugged   bool      `json:"plugged"`
	Condition Condition `json:"condition"`
	Group     int       `json:"group,omitempty" doc:"of the partition"`
	Counters
}

// Status returns all cables by name.
func (s *Switch) Status() map[string]LinkState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make(map[string]LinkState, len(s.links))
	for name, l := range s.links {
		states[name] = LinkState{Plugged: l.end != nil, Condition: l.line, Group: s.groups[name], Counters: l.count}
	}
	return states
}

// PairState is the condition between two cables.
type PairState struct {
	A         string    `json:"a"`
	B         string    `json:"b"`
	Condition Condition `json:"condition"`
}

// Pairs returns the conditions that were set between cables, each pair once.
func (s *Switch) Pairs() []PairState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []PairState
	for p, l := range s.lines {
		if p.from < p.to && l.Condition != (Condition{}) {
			states = append(states, PairState{p.from, p.to, l.Condition})
		}
	}
	slices.SortFunc(states, func(x, y PairState) int {
		return cmp.Or(cmp.Compare(x.A, y.A), cmp.Compare(x.B, y.B))
	})
	return states
}
