package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"halo.internal/mesh/heal"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Kinds of events of the last rung (heal.Last).
const (
	EventMachineRestarts  = "mesh.machine.restarts"  // fields reason, count: a driver hangs, and no link is left
	EventMachineRestarted = "mesh.machine.restarted" // the same, once the machine is back
)

const (
	lastLook = 10 * time.Second
	// hangsLong is after how long what has not come back from the kernel hangs: what takes
	// its time, such as loading a driver, takes less, or ends in between.
	hangsLong = time.Minute
	// restartPatience is how long an orderly restart may take to begin.
	restartPatience = 3 * time.Minute
)

// restarts is what outlives them: how many were asked for, in which start of the machine
// the last was, and why.
type restarts struct {
	Count int    `json:"count"`
	Boot  uint64 `json:"boot"`
	Why   string `json:"why"`
}

func (r restarts) marshal() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("mesh: restarts: " + err.Error()) // two numbers and text
	}
	sum := sha256.Sum256(b)
	return append(fmt.Appendf(nil, "%x\n", sum), b...)
}

func parseRestarts(b []byte) (r restarts, err error) {
	line, body, _ := bytes.Cut(b, []byte("\n"))
	if sum := sha256.Sum256(body); string(line) != hex.EncodeToString(sum[:]) {
		return r, errors.New("restarts: checksum differs")
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("restarts: %w", err)
	}
	if r.Count < 0 {
		return r, fmt.Errorf("restarts: count: expected 0 or more, got %d", r.Count)
	}
	return r, nil
}

// loadRestarts goes on where the start before ended, and tells of a restart that was
// asked for there. What cannot be read was many.
func (m *core) loadRestarts() *heal.Last {
	b, err := m.store.Get(paths.Restarts, "", func(b []byte) error {
		_, err := parseRestarts(b)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return &heal.Last{}
	}
	if err != nil {
		m.Log.Warn("which restarts were asked for is not known", "err", err)
		return &heal.Last{Count: heal.Many}
	}
	r, _ := parseRestarts(b) // Get has checked it
	told := slices.ContainsFunc(m.events.After(0, 0), func(e model.Event) bool { return e.Kind == EventMachineRestarted })
	if r.Boot+1 == m.id.BootCounter && r.Count > 0 && !told {
		m.events.Add(EventMachineRestarted, model.Warning, "the machine was restarted, since no link was left and "+r.Why, "reason", r.Why, "count", strconv.Itoa(r.Count))
	}
	return &heal.Last{Count: r.Count}
}

// hangs returns what has not come back from the kernel for longest, and for how long.
func (m *core) hangs() (what string, long time.Duration) {
	what, long = m.under.Hangs()
	if silent := time.Duration(m.silent.Load()); silent > long {
		return "what the kernel is asked of interfaces", silent
	}
	return what, long
}

// keepLast restarts the machine when nothing else helps, until ctx ends. It asks the kernel
// for nothing that may hang.
func (m *core) keepLast(ctx context.Context) error {
	last := m.loadRestarts()
	t := time.NewTicker(lastLook)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		m.lookLast(ctx, uptime(), last)
	}
}

// lookLast is one look, so long after the start of the machine.
func (m *core) lookLast(ctx context.Context, now time.Duration, last *heal.Last) {
	what, long := m.hangs()
	hangs := long >= hangsLong
	since, _ := last.Since()
	last.Unkept = m.permFailing() != nil
	switch last.Step(now, hangs, hangs && m.under.Carries()) {
	case heal.Reboot:
		why := fmt.Sprintf("%s had not come back from the kernel for %s", what, long.Round(time.Minute))
		if err := m.keepRestarts(restarts{last.Count, m.id.BootCounter, why}); err != nil {
			m.Log.Warn("that the machine is to restart is not kept, which has to wait longer", "err", err)
			last.NotKept(since)
			return
		}
		m.restartHung(ctx, why, last.Count)
	case heal.Forgive:
		if err := m.keepRestarts(restarts{}); err != nil {
			m.Log.Warn("that no driver has hung for long is not kept", "err", err)
		}
	}
}

// keepRestarts writes them down. Where nothing is kept in any case, heal.Last knows.
func (m *core) keepRestarts(r restarts) error {
	if m.permFailing() != nil {
		return nil
	}
	kept, err := m.store.Put(paths.Restarts, "", r.marshal())
	if err == nil && !kept {
		err = errors.New("the card has not taken it")
	}
	return err
}

// restartHung asks for the restart.
func (m *core) restartHung(ctx context.Context, why string, count int) {
	m.events.Add(EventMachineRestarts, model.Error, "no link is left and "+why+": the machine restarts, which is all that may help", "reason", why, "count", strconv.Itoa(count))
	if m.RestartHung == nil {
		m.Log.Error("restart this machine by hand: it does not do so itself")
		return
	}
	limit, cancel := context.WithTimeout(ctx, restartPatience)
	defer cancel()
	if err := m.RestartHung(limit); err != nil && ctx.Err() == nil {
		m.Log.Error("the machine does not restart by itself; do so by hand", "err", err)
	}
}
