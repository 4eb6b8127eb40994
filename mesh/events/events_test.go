package events

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"halo.internal/model"
)

func now() (time.Time, model.ClockQuality) {
	return time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), model.ClockRTC
}

func open(path string, boot uint64) *Log {
	return Open(path, "n-x", boot, now, slog.New(slog.DiscardHandler))
}

func TestNumbersGoOnWithinABoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l := open(path, 7)
	l.Add("a", model.Info, "first", "key", "value")
	l.Record(model.Event{Kind: "b", Severity: model.Warning, Message: "second", Boot: 99, Seq: 99, Node: "n-other"})
	all := l.After(0, 0)
	if len(all) != 2 || all[0].Fields["key"] != "value" || all[1].Boot != 7 || all[1].Seq != 2 || all[1].Node != "n-x" || all[1].Clock != model.ClockRTC {
		t.Fatalf("got %+v", all)
	}
	l = open(path, 7) // the process restarts
	l.Add("c", model.Info, "third")
	if got := l.After(7, 2); len(got) != 1 || got[0].Seq != 3 || got[0].Kind != "c" {
		t.Errorf("after (7, 2): %+v", got)
	}
	if got := l.After(6, 50); len(got) != 3 {
		t.Errorf("after an older boot: %d events, want all 3", len(got))
	}
	l = open(path, 8) // the machine restarts
	l.Add("d", model.Info, "first of the next boot")
	if got := l.After(0, 0); len(got) != 1 || got[0].Seq != 1 || got[0].Boot != 8 {
		t.Errorf("next boot: %+v", got)
	}
}

func TestRingAndCopyAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l := open(path, 1)
	const n = 4 * Capacity
	for i := range n {
		l.Add("e", model.Info, fmt.Sprint(i))
	}
	got := l.After(0, 0)
	if len(got) != Capacity || got[0].Seq != n-Capacity+1 || got[len(got)-1].Seq != n {
		t.Errorf("ring: %d events, %d to %d", len(got), got[0].Seq, got[len(got)-1].Seq)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 2*Capacity*300 {
		t.Errorf("copy: %d octets, %v", info.Size(), err)
	}
	if again := open(path, 1).After(0, 0); len(again) != Capacity || again[len(again)-1].Seq != n {
		t.Errorf("copy: %d events", len(again))
	}
}

func TestTornCopyLosesItsLastLineOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l := open(path, 1)
	l.Add("a", model.Info, "whole")
	l.Add("b", model.Info, "torn")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open(path, 1).After(0, 0); len(got) != 1 || got[0].Kind != "a" {
		t.Errorf("got %+v", got)
	}
}

func TestLostCopyIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l := open(path, 1)
	l.Add("a", model.Info, "one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.Add("b", model.Info, "two")
	l.Add("c", model.Info, "three")
	if got := open(path, 1).After(0, 0); len(got) != 3 {
		t.Errorf("got %d events, want all 3", len(got))
	}
}
