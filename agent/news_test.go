package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/agent/spool"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// lines hands on what is logged.
type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

// A device whose halo-mesh never answers makes its outputs safe all the same: one that a
// process before has left on is asked for.
func TestOutputsDoNotWaitForHaloMesh(t *testing.T) {
	root := t.TempDir()
	state := filepath.Join(root, paths.RunOutputs)
	if err := os.MkdirAll(filepath.Dir(state), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, []byte(`[{"output": {"name": "siren", "line": "a line of no board"}, "part": 1}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(lines, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Root: root, Role: model.RoleNode, BootID: "b", Log: slog.New(slog.NewTextHandler(said, nil))})
	}()
	for limit := time.After(time.Minute); ; {
		var line string
		select {
		case line = <-said:
		case err := <-done:
			t.Fatalf("it ended: %v", err)
		case <-limit:
			t.Fatal("nobody tried to make the siren safe")
		}
		if strings.Contains(line, "an output is not in its safe state") && strings.Contains(line, "siren") {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestEventsBeforeThereIsASpool(t *testing.T) {
	dir := t.TempDir()
	var n news
	for range maxEarly + 1 {
		if err := n.add("output.safe", model.Warning, "early", nil); err != nil {
			t.Fatal(err)
		}
	}
	if !n.toldAll() {
		t.Error("a reset would wait for a spool")
	}
	s, err := spool.Open(spool.Options{Live: filepath.Join(dir, "run"), Disk: filepath.Join(dir, "perm"), Boot: 1, Owner: spool.Owner{Network: "k", Node: "n-x"}, Budget: 1 << 20, Delay: time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockGateway }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.open(s); err != nil {
		t.Fatal(err)
	}
	if err := n.add("output.safe", model.Warning, "late", nil); err != nil {
		t.Fatal(err)
	}
	events := 0
	for _, i := range s.Items() {
		if i.Kind == spool.Event {
			events++
		}
	}
	if events != maxEarly+1 || n.toldAll() {
		t.Errorf("%d events, want %d; told of all: %v", events, maxEarly+1, n.toldAll())
	}
}

// What is told early and often displaces nothing that matters more.
func TestInformationIsForgottenFirst(t *testing.T) {
	var n news
	add := func(times int, kind string, s model.Severity) {
		t.Helper()
		for range times {
			if err := n.add(kind, s, "early", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() (info, warning int) {
		for _, e := range n.early {
			switch e.severity {
			case model.Info:
				info++
			case model.Warning:
				warning++
			}
		}
		return info, warning
	}
	add(2, "output.safe", model.Warning)
	add(2*maxEarly, "input.changed", model.Info)
	if info, warning := count(); info != maxEarly-2 || warning != 2 {
		t.Errorf("%d of information and %d warnings are kept, want %d and 2", info, warning, maxEarly-2)
	}
	add(maxEarly-3, "output.safe", model.Warning)
	if info, warning := count(); info != 1 || warning != maxEarly-1 {
		t.Errorf("%d of information and %d warnings are kept, want 1 and %d", info, warning, maxEarly-1)
	}
	add(2, "output.safe", model.Warning)
	add(1, "input.changed", model.Info)
	if info, warning := count(); info != 0 || warning != maxEarly {
		t.Errorf("%d of information and %d warnings are kept, want none and %d", info, warning, maxEarly)
	}
}
