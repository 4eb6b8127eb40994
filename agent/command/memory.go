package command

import (
	"cmp"
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
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

const (
	maxEntries = 128
	maxKept    = 4 << 10   // octets of a result that outlives the process
	maxMemory  = 512 << 10 // octets of a file
)

// Entry is a command that was begun, and what became of it.
type Entry struct {
	Epoch  uint64             `json:"epoch"`
	Number uint64             `json:"number"`
	Kind   model.CommandKind  `json:"kind"`
	About  string             `json:"about,omitempty"` // what it is done to, where a later start has to know
	Boot   uint64             `json:"boot"`            // in which it was begun
	State  model.CommandState `json:"state"`
	Code   string             `json:"code,omitempty"`
	Text   string             `json:"text,omitempty"`
	Result json.RawMessage    `json:"result,omitempty"`
	Acked  bool               `json:"acked,omitempty"` // the gateway has it
}

// ID returns the command's name.
func (e Entry) ID() wire.CommandID { return wire.NewCommandID(e.Epoch, e.Number) }

func (e Entry) report() wire.CommandReport {
	return wire.CommandReport{ID: e.ID(), State: e.State, Code: e.Code, Text: e.Text, Result: e.Result}
}

// kept is the form of a memory's file.
type kept struct {
	Network string  `json:"network"`
	Node    string  `json:"node"`
	Epoch   uint64  `json:"epoch"` // highest that an order had
	Floor   floor   `json:"floor"` // what is not after it and not an entry was forgotten
	Entries []Entry `json:"entries"`
}

type floor struct {
	Epoch  uint64 `json:"epoch"`
	Number uint64 `json:"number"`
}

func (f floor) id() wire.CommandID { return wire.CommandID{Epoch: f.Epoch, Number: f.Number} }

// Memory is which commands were begun: on the card, so that a start of the machine
// knows, and in /run, for where there is no card to write to. It holds the latest of
// them; what is older is refused, so that nothing is done twice whatever is
// forgotten. Its methods may be called from any goroutine.
type Memory struct {
	files []string    // the first is on the card
	lasts func() bool // the card is there

	mu      sync.Mutex // guards what follows
	kept    kept
	written []bool // by file
}

// OpenMemory reads what was begun. What belongs to another network or node is no
// concern of this one. lasts tells whether the first file outlives a start of the
// machine. An error tells of files that cannot be read, and leaves a memory that can
// be used.
func OpenMemory(network, node string, lasts func() bool, files ...string) (*Memory, error) {
	m := &Memory{files: files, lasts: lasts, kept: kept{Network: network, Node: node}, written: make([]bool, len(files))}
	var errs []error
	for _, f := range files {
		k, err := readMemory(f)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		case k.Network == network && k.Node == node:
			m.join(k)
		}
	}
	return m, errors.Join(errs...)
}

func readMemory(file string) (kept, error) {
	var k kept
	info, err := os.Stat(file)
	if err != nil {
		return k, err
	}
	if info.Size() > maxMemory {
		return k, fmt.Errorf("%s: expected at most %d octets, got %d", file, maxMemory, info.Size())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

// join takes over what another file knows: of one command the later state.
func (m *Memory) join(k kept) {
	m.kept.Epoch = max(m.kept.Epoch, k.Epoch)
	if k.Floor.id().After(m.kept.Floor.id()) {
		m.kept.Floor = k.Floor
	}
	for _, e := range k.Entries {
		i := m.find(e.ID())
		switch {
		case i < 0:
			m.kept.Entries = append(m.kept.Entries, e)
		case !m.kept.Entries[i].State.Final() || e.Acked:
			m.kept.Entries[i] = e
		}
	}
	m.trim()
}

// trim sorts the entries, oldest first, and forgets those beyond the bound. mu is
// held.
func (m *Memory) trim() {
	order.By(m.kept.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Number, b.Number))
	})
	for len(m.kept.Entries) > maxEntries {
		e := m.kept.Entries[0]
		m.kept.Entries = slices.Delete(m.kept.Entries, 0, 1)
		if e.ID().After(m.kept.Floor.id()) {
			m.kept.Floor = floor{e.Epoch, e.Number}
		}
	}
}

func (m *Memory) find(id wire.CommandID) int {
	return slices.IndexFunc(m.kept.Entries, func(e Entry) bool { return e.ID() == id })
}

// Find returns a command that was begun. forgotten tells that it may have been, so
// long ago that it is not known.
func (m *Memory) Find(id wire.CommandID) (e Entry, begun, forgotten bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.find(id); i >= 0 {
		return m.kept.Entries[i], true, false
	}
	full := len(m.kept.Entries) >= maxEntries && m.kept.Entries[0].ID().After(id) // it would be the first to be forgotten
	return Entry{}, false, full || !id.After(m.kept.Floor.id())
}

// Epoch returns the highest epoch that an order had.
func (m *Memory) Epoch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept.Epoch
}

// Begin notes that a command is about to be executed, by an order of that epoch. After
// an error it must not be. lasts tells whether that is also known after a start of
// the machine.
func (m *Memory) Begin(e Entry, epoch uint64) (lasts bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, entries := m.kept, slices.Clone(m.kept.Entries)
	m.kept.Epoch = max(m.kept.Epoch, epoch)
	m.kept.Entries = append(m.kept.Entries, e)
	m.trim()
	if err := m.write(); !slices.Contains(m.written, true) {
		m.kept = before
		m.kept.Entries = entries
		return false, err
	}
	return m.written[0] && m.lasts(), nil
}

// End notes what became of a command. That it cannot be written is no reason not to
// tell the gateway: the next start takes the command for interrupted.
func (m *Memory) End(id wire.CommandID, r wire.CommandReport) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(id)
	if i < 0 {
		return nil // forgotten meanwhile
	}
	e := &m.kept.Entries[i]
	e.State, e.Code, e.Text = r.State, r.Code, r.Text
	if len(r.Result) <= maxKept {
		e.Result = r.Result
	}
	return m.write()
}

// Acked notes that the gateway has the last word on a command. It is written with
// what comes next: to tell it once more after a restart does no harm.
func (m *Memory) Acked(id wire.CommandID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.find(id); i >= 0 {
		m.kept.Entries[i].Acked, m.kept.Entries[i].Result = true, nil
	}
}

// Open returns the commands of which the gateway has not had the last word.
func (m *Memory) Open() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var open []Entry
	for _, e := range m.kept.Entries {
		if !e.Acked {
			open = append(open, e)
		}
	}
	return open
}

// write writes all files. mu is held.
func (m *Memory) write() error {
	b, err := json.Marshal(m.kept)
	if err != nil {
		return err
	}
	var errs []error
	for i, f := range m.files {
		err := os.MkdirAll(filepath.Dir(f), 0o700)
		if err == nil {
			err = atomicfile.Write(f, b, 0o600)
		}
		m.written[i] = err == nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
