package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/update/commit"
)

// maxBootReport bounds what is read of the boot report.
const maxBootReport = 256 << 10

// bootReport reads what the guard says of this start. There is none where the
// system was not started by halo-init.
func (m *core) bootReport() (r model.BootReport, ok bool) {
	path := m.path(paths.BootReport)
	now, err := os.Stat(path)
	if err != nil {
		return model.BootReport{}, false
	}
	m.boot.Lock()
	defer m.boot.Unlock()
	// The guard puts another file in its place: it is asked for every second.
	if m.boot.file == nil || !os.SameFile(m.boot.file, now) || m.boot.file.ModTime() != now.ModTime() || m.boot.file.Size() != now.Size() {
		if m.boot.report, ok = readBootReport(path); !ok {
			m.boot.file = nil
			return model.BootReport{}, false
		}
		m.boot.file = now
	}
	return m.boot.report, true
}

// bootSeen is the boot report that was read last.
type bootSeen struct {
	sync.Mutex
	file   fs.FileInfo // nil: there was none
	report model.BootReport
}

func readBootReport(path string) (r model.BootReport, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) > maxBootReport || json.Unmarshal(b, &r) != nil {
		return model.BootReport{}, false
	}
	return r, true
}

// tellBoot records what a person should know about this start.
func (m *core) tellBoot() {
	r, ok := m.bootReport()
	if !ok {
		return
	}
	m.events.Add("node.started", model.Info, "machine started", "slot", r.Slot, "version", r.Version, "kernel", r.Kernel)
	if r.SlotReason != "" {
		m.events.Add("boot.slot", model.Warning, "this slot runs because of the other: "+r.SlotReason, "slot", r.Slot)
	}
	if r.Crash != nil {
		m.events.Add("boot.crash", model.Error, "kernel fell before this start: "+r.Crash.Cause, "file", r.Crash.File)
	}
	found := r.Perm.State
	if r.Perm.Before != "" {
		found = r.Perm.Before // it is full meanwhile, which perm.failing tells
	}
	switch found {
	case model.PermRemade:
		m.events.Add("perm.remade", model.Error, "data partition was made anew: "+r.Perm.Detail, "lost", strings.Join(r.Perm.Lost, " "))
	case model.PermDamaged:
		m.events.Add("perm.damaged", model.Error, "data partition is damaged and still in use: "+r.Perm.Detail)
	}
	m.tellProblems(r)
}

// tellProblems records what the report says went wrong, each problem once while
// it is there: the guard adds what it finds later, such as a copy of the card
// that is plugged in, and takes it out when that is gone.
func (m *core) tellProblems(r model.BootReport) {
	const kind = "boot.problem"
	if m.problems == nil { // an earlier process of this boot may have told some
		m.problems = map[string]bool{}
		for _, e := range m.events.After(0, 0) {
			if e.Kind == kind {
				m.problems[e.Message] = true
			}
		}
	}
	maps.DeleteFunc(m.problems, func(p string, _ bool) bool { return !slices.Contains(r.Problems, p) })
	for _, p := range r.Problems {
		if !m.problems[p] {
			m.problems[p] = true
			m.events.Add(kind, model.Warning, p)
		}
	}
}

// watchBoot records what has come into the boot report since.
func (m *core) watchBoot() {
	if r, ok := m.bootReport(); ok {
		m.tellProblems(r)
	}
}

// permFailing returns why nothing is kept, from what halo-mesh and the guard
// see; nil when all is well.
func (m *core) permFailing() error {
	if err := m.store.Failing(); err != nil {
		return err
	}
	if r, ok := m.bootReport(); ok {
		switch r.Perm.State {
		case model.PermVolatile, model.PermReadOnly, model.PermFull:
			return fmt.Errorf("data partition is %s: %s", r.Perm.State, r.Perm.Detail)
		}
	}
	return nil
}

// fit tells whether this start is good. A slot that was good before is when the
// device does its own part: its network may be out of reach. A new one has to
// reach the network, or else the update is undone.
func (m *core) fit(committed bool) error {
	if err := m.under.Ready(); err != nil {
		return err
	}
	if committed {
		return nil
	}
	r := m.graph.Report()
	for _, c := range r.Checks {
		if c.Name == checkOverlay && c.State != health.OK {
			return errors.New(c.Detail)
		}
	}
	return nil
}

// vouch tells the guard as soon as this start is good, once.
func (m *core) vouch(ctx context.Context) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		r, ok := m.bootReport()
		if !ok {
			continue // not written yet, or never: a laptop has no guard
		}
		if r.Healthy {
			return nil
		}
		if m.fit(r.Committed) != nil {
			continue
		}
		err := commit.Healthy(ctx, m.path(paths.GuardSocket))
		if err == nil {
			m.Log.Info("this start is healthy", "slot", r.Slot)
			return nil
		}
		if !told {
			m.Log.Warn("guard does not take that this start is healthy", "err", err)
			told = true
		}
	}
}
