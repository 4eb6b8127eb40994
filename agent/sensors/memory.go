package sensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// entry is what is remembered of a place: which metrics it has, and what a person has said
// of it.
type entry struct {
	Bus       string             `json:"bus"`
	Address   uint16             `json:"address"`
	Chip      string             `json:"chip"`
	Label     string             `json:"label"`
	Assigned  bool               `json:"assigned,omitempty"`
	IntervalS float64            `json:"interval_s,omitempty"`
	Params    map[string]float64 `json:"params,omitempty"`

	claimed bool // its label is not on the card yet
}

// memory keeps entries on the card, and in RAM where that takes nothing.
type memory struct {
	file string

	mu      sync.Mutex // guards what follows
	entries []entry
}

const maxMemory = 256 << 10

func openMemory(file string) (*memory, error) {
	m := &memory{file: file}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if len(b) > maxMemory {
		return m, fmt.Errorf("%s: expected at most %d octets, got %d", file, maxMemory, len(b))
	}
	var list []entry
	if err := json.Unmarshal(b, &list); err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	for _, e := range list {
		c := model.Command{Kind: model.CommandSensor, Sensor: &model.SensorCommand{Do: model.SensorAssign, Bus: e.Bus, Address: e.Address, Chip: e.Chip, Label: e.Label, IntervalS: e.IntervalS, Params: e.Params}}
		if err := c.Check(); err != nil {
			return m, fmt.Errorf("%s: %w", file, err)
		}
	}
	m.entries = list[:min(len(list), 2*model.MaxSensors)]
	return m, nil
}

// of returns what is remembered of a place.
func (m *memory) of(bus string, addr uint16) (entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.index(bus, addr)
	if i < 0 {
		return entry{}, false
	}
	return m.entries[i], true
}

func (m *memory) index(bus string, addr uint16) int {
	return slices.IndexFunc(m.entries, func(e entry) bool { return e.Bus == bus && e.Address == addr })
}

// put remembers an entry. An error is of the card: until the next start it is known all
// the same.
func (m *memory) put(e entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.claimed = false
	m.set(m.index(e.Bus, e.Address), e)
	return m.save()
}

// set has an entry be that of index i, or a new one where that is negative; its caller
// holds the lock.
func (m *memory) set(i int, e entry) {
	if i >= 0 {
		m.entries[i] = e
		return
	}
	if len(m.entries) >= 2*model.MaxSensors {
		m.drop()
	}
	m.entries = append(m.entries, e)
}

// drop forgets the oldest of which nobody has said anything; its caller holds the lock.
func (m *memory) drop() {
	i := max(slices.IndexFunc(m.entries, func(e entry) bool { return !e.Assigned }), 0)
	m.entries = slices.Delete(m.entries, i, i+1)
}

// forget forgets a place, and tells whether anything was known of it.
func (m *memory) forget(bus string, addr uint16) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.index(bus, addr)
	if i < 0 {
		return false, nil
	}
	m.entries = slices.Delete(m.entries, i, i+1)
	return true, m.save()
}

// claim returns the label of a chip at a place: the one that it had, or the chip's name,
// with a number behind it where another place has that. It is the place's from then on,
// though not on the card: buses are looked at at the same time.
func (m *memory) claim(bus string, addr uint16, chip string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.index(bus, addr)
	if i >= 0 && m.entries[i].Chip == chip && m.entries[i].Label != "" {
		return m.entries[i].Label
	}
	label := chip
	for n := 2; m.taken(label, bus, addr); n++ {
		label = fmt.Sprintf("%.28s-%d", chip, n)
	}
	e := entry{Bus: bus, Address: addr}
	if i >= 0 && m.entries[i].Chip == chip {
		e = m.entries[i]
	}
	e.Chip, e.Label, e.claimed = chip, label, true
	m.set(i, e)
	return label
}

// taken tells whether another place has a label; its caller holds the lock.
func (m *memory) taken(label, bus string, addr uint16) bool {
	return slices.ContainsFunc(m.entries, func(e entry) bool { return e.Label == label && !(e.Bus == bus && e.Address == addr) })
}

// assigned returns the places of a bus of which a person has said something.
func (m *memory) assigned(bus string) []entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []entry
	for _, e := range m.entries {
		if e.Bus == bus && e.Assigned {
			list = append(list, e)
		}
	}
	return list
}

// save writes all; its caller holds the lock.
func (m *memory) save() error {
	b, err := json.Marshal(m.entries)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(m.file, append(b, '\n'), 0o600)
}
