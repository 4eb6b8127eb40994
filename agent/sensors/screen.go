package sensors

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/drivers/i2c"
	"halo.internal/model"
)

const screenEvery = 5 * time.Second

// screen has a display show how the device is, or what somebody wants to be read there: a
// collector that reads nothing.
type screen struct {
	*reader
	display i2c.Display
	lines   func() []string
}

// notice is what a display shows in place of how the device is. It stays when the display
// comes and goes.
type notice struct {
	lines []string
	until time.Time
}

// Collect implements collect.Collector.
func (s *screen) Collect(ctx context.Context) ([]collect.Reading, error) {
	if err := s.use(ctx); err != nil {
		return nil, err
	}
	defer s.done()
	if err := s.display.Show(ctx, s.now()); err != nil {
		s.doubt(err)
		return nil, err
	}
	s.good("")
	return nil, nil
}

// now is what is to be shown.
func (s *screen) now() []string {
	m := s.line.m
	m.mu.Lock()
	n := s.notice
	m.mu.Unlock()
	if time.Now().Before(n.until) {
		return n.lines
	}
	return s.lines()
}

// displays are the displays that are driven now, by label; the caller holds the lock.
func (m *Manager) displays() map[string]*screen {
	all := map[string]*screen{}
	for _, l := range m.buses {
		for _, p := range l.places {
			if p.reader == nil {
				continue
			}
			if d, ok := p.reader.dev.(i2c.Display); ok && m.Status != nil {
				all[p.label] = &screen{p.reader, d, m.Status}
			}
		}
	}
	return all
}

// Displays are the labels of the displays that are driven now.
func (m *Manager) Displays() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var labels []string
	for label := range m.displays() {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	return labels
}

// Show has a display show lines for a while, none: how the device is, and returns its label.
// An empty label is the only one's. What fails does not happen later: the display shows what
// it did before.
func (m *Manager) Show(ctx context.Context, label string, lines []string, d time.Duration) (string, error) {
	m.mu.Lock()
	all := m.displays()
	m.mu.Unlock()
	labels := slices.Sorted(maps.Keys(all))
	if label == "" && len(labels) == 1 {
		label = labels[0]
	}
	s := all[label]
	if s == nil {
		return "", model.RefuseCommand(model.CodeNoDisplay, "expected one of the displays %s, got %.40q", strings.Join(labels, ", "), label)
	}
	limited, cancel := context.WithTimeout(ctx, calmLimit)
	defer cancel()
	if err := s.use(limited); err != nil {
		return label, fmt.Errorf("the display %s has not answered within %s: try again: %w", label, calmLimit, err)
	}
	defer s.done()
	var n notice
	if len(lines) > 0 {
		n = notice{lines, time.Now().Add(d)}
	} else {
		lines = s.lines()
	}
	if err := s.display.Show(limited, lines); err != nil {
		return label, fmt.Errorf("the display %s: %w", label, err)
	}
	m.mu.Lock()
	s.notice = n
	m.mu.Unlock()
	return label, nil
}
