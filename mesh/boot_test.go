package mesh

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/mesh/events"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// A copy of the card that is plugged in later is told like one that was there
// at the start, and once, whichever process of this boot sees it.
func TestProblemsThatComeLaterAreEventsOnce(t *testing.T) {
	root := t.TempDir()
	report := func(problems ...string) {
		t.Helper()
		b, err := json.Marshal(model.BootReport{Problems: problems})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, paths.BootReport), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process := func() *core {
		return &core{Config: Config{Root: root}, events: events.Open(filepath.Join(root, paths.RunEvents), "n-x", 3,
			func() (time.Time, model.ClockQuality) { return time.Unix(0, 0), model.ClockNone }, slog.New(slog.DiscardHandler))}
	}
	if err := os.MkdirAll(filepath.Join(root, paths.Run), 0o755); err != nil {
		t.Fatal(err)
	}
	report("early")
	m := process()
	m.tellBoot()
	m.watchBoot()
	report("early", "two disks are alike: sda is a copy of mmcblk0")
	m.watchBoot()
	m.watchBoot()
	m = process() // of the same boot: it does not call tellBoot
	m.watchBoot()
	report("early", "two disks are alike: sda is a copy of mmcblk0", "late")
	m.watchBoot()

	report("early", "late")
	m.watchBoot()
	report("early", "late", "two disks are alike: sda is a copy of mmcblk0") // plugged in again
	m.watchBoot()

	var got []string
	for _, e := range m.events.After(0, 0) {
		if e.Kind == "boot.problem" {
			got = append(got, e.Message)
		}
	}
	if want := []string{"early", "two disks are alike: sda is a copy of mmcblk0", "late", "two disks are alike: sda is a copy of mmcblk0"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
