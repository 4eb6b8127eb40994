package sensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	file   string
	unread error // why what the card has is not known: it must not be written over

	mu      sync.Mutex // guards what follows
	entries []entry
}

const (
	maxMemory  = 1 << 20 // more than all entries with all their parameters
	maxEntries = 2 * model.MaxSensors
	damaged    = ".damaged" // behind the name of a file that was set aside
)

// openMemory reads what the card has. The error says what of it is lost: of a file that is
// damaged the good entries are taken, and it is set aside before another takes its place.
// What can't be read at all stays as it is, and nothing is written until the next start.
func openMemory(file string) (*memory, error) {
	m := &memory{file: file}
	b, err := readMemory(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		m.unread = err
		return m, fmt.Errorf("%w; the file is left as it is, and what is said from now on is lost with the next start", err)
	}
	wrong := m.take(b)
	if len(wrong) == 0 {
		return m, nil
	}
	err = fmt.Errorf("%s: %s", file, strings.Join(wrong, "; "))
	if aside := setAside(file); aside != nil {
		m.unread = err
		return m, fmt.Errorf("%w; it could not be set aside (%w) and is left as it is", err, aside)
	}
	if kept := m.save(); kept != nil {
		return m, fmt.Errorf("%w; what is good in it is not kept over a start: %w", err, kept)
	}
	return m, fmt.Errorf("%w; it is kept as %s", err, file+damaged)
}

// setAside has a file have another name besides its own, under which it stays when another
// takes its place: a power cut in between loses nothing.
func setAside(file string) error {
	if err := os.Remove(file + damaged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(file, file+damaged)
}

// readMemory reads one octet more than there may be, so that too many are seen.
func readMemory(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxMemory+1))
}

// take takes the good entries of a file's text, and says what is wrong with the others, of
// many with the first.
func (m *memory) take(b []byte) (wrong []string) {
	const told = 4
	if len(b) > maxMemory {
		return []string{fmt.Sprintf("expected at most %d octets", maxMemory)}
	}
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return []string{err.Error()}
	}
	for i, one := range list {
		var e entry
		err := json.Unmarshal(one, &e)
		if err == nil {
			c := model.Command{Kind: model.CommandSensor, Sensor: &model.SensorCommand{Do: model.SensorAssign, Bus: e.Bus, Address: e.Address, Chip: e.Chip, Label: e.Label, IntervalS: e.IntervalS, Params: e.Params}}
			err = c.Check()
		}
		if err == nil {
			if !m.full(e) {
				m.set(m.index(e.Bus, e.Address), e)
				continue
			}
			err = fmt.Errorf("expected at most %d places of which a person has said something", maxEntries)
		}
		if len(wrong) < told {
			wrong = append(wrong, fmt.Sprintf("entry %d: %v", i, err))
		}
	}
	return wrong
}

// full tells whether there is no room for what a person says of a place; its caller holds
// the lock.
func (m *memory) full(e entry) bool {
	n := 0
	for _, o := range m.entries {
		if o.Assigned && !(o.Bus == e.Bus && o.Address == e.Address) {
			n++
		}
	}
	return e.Assigned && n >= maxEntries
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
	if len(m.entries) >= maxEntries {
		m.drop()
	}
	m.entries = append(m.entries, e)
}

// drop forgets the oldest of which nobody has said anything, if there is one: what people
// say is bounded where they say it. Its caller holds the lock.
func (m *memory) drop() {
	if i := slices.IndexFunc(m.entries, func(e entry) bool { return !e.Assigned }); i >= 0 {
		m.entries = slices.Delete(m.entries, i, i+1)
	}
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
	if m.unread != nil {
		return fmt.Errorf("what %s has could not be read at the start, and is not written over: %w", m.file, m.unread)
	}
	b, err := json.Marshal(m.entries)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(m.file, append(b, '\n'), 0o600)
}
