package timeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unicode/utf8"

	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// The budget of writes to the card: four in store, one more each half hour. So a
// link that breaks and heals all day costs 52 writes of at most some 30 KiB, and
// one start of the machine costs one.
const (
	burst      = 4
	another    = 30 * time.Minute
	lastingFor = 10 * time.Minute // after which a recovery that lasts is written, once
)

// maxFile bounds what is read.
const maxFile = 256 << 10

// Store keeps recoveries in two files: one in RAM, always true, for a restart of
// the process; one on the card, within the budget. Its methods are for one
// goroutine.
type Store struct {
	ram  string
	card func([]byte) error

	text   []byte        // as the file in RAM has it
	stale  bool          // the card has not taken what is worth keeping
	tokens int           // writes that may be made
	filled time.Duration // when one was last added
	begun  bool          // filled is set
	long   int64         // beginning of the lasting recovery that was written; -1: none
	failed string
}

// NewStore returns a store over a file in RAM and a way to write to the card.
func NewStore(ram string, card func([]byte) error) *Store {
	return &Store{ram: ram, card: card, tokens: burst, long: -1}
}

// Load returns what is kept: that of the file in RAM, or else of card, which is
// the file on the card, nil without one. restarted says that it was the one in RAM,
// which an earlier process of this boot has written. What cannot be read is as if
// it were not there; the error tells of it.
func (s *Store) Load(card []byte) (kept []model.Recovery, restarted bool, err error) {
	b, err := read(s.ram)
	if err == nil {
		if kept, err = Parse(b); err == nil && len(kept) > 0 {
			return kept, true, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if card == nil {
		return nil, false, err
	}
	kept, cardErr := Parse(card)
	return kept, false, errors.Join(err, cardErr)
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: expected at most %d octets, got %d", path, maxFile, info.Size())
	}
	return os.ReadFile(path)
}

// Keep writes what has changed: to RAM at once, to the card when a recovery has
// ended or lasts long, and the budget lets it. last says that the process ends.
func (s *Store) Keep(now time.Duration, list []model.Recovery, ended, last bool) error {
	text, err := Marshal(list)
	if err != nil {
		return err
	}
	var errs []error
	if string(text) != string(s.text) {
		s.text = text
		errs = append(errs, atomicfile.Write(s.ram, text, 0o600))
	}
	if n := len(list); n > 0 && list[n-1].State == model.RecoveryLasts {
		if c := list[n-1]; c.BeganMS != s.long && now-time.Duration(c.BeganMS)*time.Millisecond >= lastingFor {
			s.long, ended = c.BeganMS, true
		}
		ended = ended || last
	}
	s.stale = s.stale || ended
	s.fill(now)
	if s.stale && (s.tokens > 0 || last) {
		s.tokens = max(s.tokens-1, 0) // a write that fails wears the card as well
		err := s.card(text)
		s.stale = err != nil
		errs = append(errs, err)
	}
	return s.once(errors.Join(errs...))
}

func (s *Store) fill(now time.Duration) {
	if !s.begun {
		s.begun, s.filled = true, now
	}
	for now-s.filled >= another {
		s.filled += another
		s.tokens = min(s.tokens+1, burst)
	}
}

// once returns an error only when it is another than the last.
func (s *Store) once(err error) error {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == s.failed {
		return nil
	}
	s.failed = text
	return err
}

// Marshal encodes recoveries for a file.
func Marshal(list []model.Recovery) ([]byte, error) {
	b, err := json.Marshal(list)
	return append(b, '\n'), err
}

// ErrDamaged is wrapped where a file is not one that Marshal makes.
var ErrDamaged = errors.New("timeline is damaged")

// Parse reads a file, and bounds all of it.
func Parse(b []byte) ([]model.Recovery, error) {
	var list []model.Recovery
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: expected at most %d octets, got %d", ErrDamaged, maxFile, len(b))
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(list) > Kept {
		return nil, fmt.Errorf("%w: expected at most %d recoveries, got %d", ErrDamaged, Kept, len(list))
	}
	for i, c := range list {
		if err := check(c); err != nil {
			return nil, fmt.Errorf("%w: recovery %d: %w", ErrDamaged, i, err)
		}
		if c.State == model.RecoveryLasts && i != len(list)-1 {
			return nil, fmt.Errorf("%w: recovery %d: only the last may last", ErrDamaged, i)
		}
	}
	return list, nil
}

func check(c model.Recovery) error {
	switch c.Cause {
	case model.CausePowerOn, model.CauseRestart, model.CauseBroken:
	default:
		return fmt.Errorf("cause: expected power-on, restart or broken, got %.20q", c.Cause)
	}
	switch c.State {
	case model.RecoveryLasts, model.RecoveryOver, model.RecoveryCut:
	default:
		return fmt.Errorf("state: expected lasts, over or cut, got %.20q", c.State)
	}
	if c.BeganMS < 0 || c.TotalMS < 0 || len(c.Stages) > len(model.RecoveryStages) || len(c.Steps) > maxSteps {
		return fmt.Errorf("expected times from 0 on, at most %d stages and %d steps, got %d, %d, %d and %d", len(model.RecoveryStages), maxSteps, c.BeganMS, c.TotalMS, len(c.Stages), len(c.Steps))
	}
	texts := []string{c.Check, c.Detail, c.Missing, string(c.Clock)}
	for _, list := range [][]model.RecoveryMark{c.Stages, c.Steps} {
		for _, m := range list {
			if m.MS < 0 {
				return fmt.Errorf("%.20q: expected a time from 0 on, got %d", m.Name, m.MS)
			}
			texts = append(texts, m.Name, m.Detail)
		}
	}
	for _, t := range texts {
		if len(t) > maxText || !utf8.ValidString(t) {
			return fmt.Errorf("expected texts of at most %d octets, got %d", maxText, len(t))
		}
	}
	return nil
}
