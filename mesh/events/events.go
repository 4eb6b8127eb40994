// Package events keeps what has happened on this node in this boot, numbered
// without holes, until halo-agent has sent it on. It is a bounded ring in RAM,
// with a copy in /run (RAM too), so that numbers are not used twice when the
// process restarts.
package events

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// Capacity is how many events are kept; older ones are forgotten.
const Capacity = 512

// maxLine bounds an event in the copy.
const maxLine = 16 << 10

// Log is a node's event log. Its methods may be called from any goroutine.
type Log struct {
	path string
	node string
	boot uint64
	now  func() (time.Time, model.ClockQuality)
	log  *slog.Logger

	mu    sync.Mutex // guards what follows
	ring  []model.Event
	seq   uint64 // of the last event
	lines int    // in the copy
}

// Open returns the log of a boot, continued from the copy at path if that is of
// the same boot.
func Open(path, node string, boot uint64, now func() (time.Time, model.ClockQuality), log *slog.Logger) *Log {
	l := &Log{path: path, node: node, boot: boot, now: now, log: log}
	l.ring = load(path, boot)
	if n := len(l.ring); n > 0 {
		l.seq = l.ring[n-1].Seq
	}
	return l
}

// load reads what an earlier process of this boot wrote. A line that was cut
// off ends it.
func load(path string, boot uint64) []model.Event {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []model.Event
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		var e model.Event
		if json.Unmarshal(s.Bytes(), &e) != nil || e.Boot != boot {
			break
		}
		out = append(out, e)
	}
	return out[max(0, len(out)-Capacity):]
}

// Add records an event; fields are pairs of key and value.
func (l *Log) Add(kind string, s model.Severity, message string, fields ...string) {
	e := model.Event{Kind: kind, Severity: s, Message: message}
	for i := 0; i+1 < len(fields); i += 2 {
		if e.Fields == nil {
			e.Fields = map[string]string{}
		}
		e.Fields[fields[i]] = fields[i+1]
	}
	l.Record(e)
}

// Record records an event whose kind, severity, message and fields are set. It
// is logged as well, since on a serial console there is nothing else to read.
func (l *Log) Record(e model.Event) {
	args := []any{"kind", e.Kind}
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		args = append(args, k, e.Fields[k])
	}
	l.log.Log(context.Background(), level(e.Severity), e.Message, args...)
	t, quality := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Boot, e.Seq, e.Node, e.Time, e.Clock = l.boot, l.seq, l.node, t.UTC(), quality
	l.ring = append(l.ring, e)
	l.ring = l.ring[max(0, len(l.ring)-Capacity):]
	if err := l.write(e); err != nil {
		l.log.Warn("event not kept for a restart of the process", "err", err)
	}
}

func level(s model.Severity) slog.Level {
	switch s {
	case model.Error:
		return slog.LevelError
	case model.Warning:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// write appends to the copy, and makes it anew at the start and when it has
// grown to twice what is kept.
func (l *Log) write(e model.Event) error {
	if l.lines == 0 || l.lines >= 2*Capacity {
		var all []byte
		for _, e := range l.ring {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			all = append(append(all, b...), '\n')
		}
		if err := atomicfile.Write(l.path, all, 0o600); err != nil {
			return err
		}
		l.lines = len(l.ring)
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		l.lines = 0
		return fmt.Errorf("copy of the events is gone: %w", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	l.lines++
	return errors.Join(err, f.Close())
}

// After returns the events after (boot, seq), oldest first. Numbers of another
// boot are all in the past.
func (l *Log) After(boot, seq uint64) []model.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []model.Event{}
	for _, e := range l.ring {
		if boot != l.boot || e.Seq > seq {
			out = append(out, e)
		}
	}
	return out
}
