//go:build lab

package systemtest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"halo.internal/lab/network"
	"halo.internal/lab/scenarios"
)

// part is something that is done to a running network, in its turn.
type part struct {
	name string
	run  func(*testing.T, *lab)
}

// parts runs them one after the other, as far as they pass.
func (l *lab) parts(t *testing.T, parts ...part) {
	t.Helper()
	for _, part := range parts {
		if part.run == nil {
			continue // not asked for
		}
		ok := t.Run(part.name, func(t *testing.T) {
			start := time.Now()
			if l.world != nil {
				l.world.Say = func(text string) { t.Log(text) }
			}
			part.run(t, l)
			t.Logf("%.0f s", time.Since(start).Seconds())
		})
		if !ok {
			l.consoles(t)
			if s, err := l.net.AirStatus(); err == nil {
				t.Logf("the air: %+v", s)
			}
			return // what follows stands on it
		}
	}
}

// scenarios are those that need such a network, and after them the table of how
// they went. HALO_SCENARIO_RUNS is how often those are run that repeat,
// HALO_PARTITION how long a partition lasts: else a minute, in which a node writes to its
// card what it can't send (that of halo-lab scenario is 200 s).
func (l *lab) scenarios() (parts []part) {
	mesh := network.ByAir
	if l.net.Air == nil {
		mesh = network.ByCable
	}
	var results []scenarios.Result
	for _, s := range scenarios.All() {
		if s.Mesh != mesh || !s.InSuite() && os.Getenv("HALO_SOAK") == "" {
			continue
		}
		parts = append(parts, part{"scenario " + s.Name, func(t *testing.T, l *lab) {
			l.world.Partition = time.Minute
			if text := os.Getenv("HALO_PARTITION"); text != "" {
				d, err := time.ParseDuration(text)
				if err != nil {
					t.Fatalf("HALO_PARTITION: %v", err)
				}
				l.world.Partition = d
			}
			for range runs(t, s) {
				r := l.world.Run(t.Context(), s)
				if results = append(results, r); !r.OK {
					l.table(t, mesh, results)
					t.Fatal(r.Failure)
				}
				for _, n := range r.Notes {
					t.Log(n)
				}
			}
		}})
	}
	return append(parts, part{name: "scenarios have a table", run: func(t *testing.T, l *lab) { l.table(t, mesh, results) }})
}

// runs is how often a scenario is run.
func runs(t *testing.T, s scenarios.Scenario) int {
	text := os.Getenv("HALO_SCENARIO_RUNS")
	if text == "" || !s.Repeats {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HALO_SCENARIO_RUNS: expected a number from 1, got %q", text)
	}
	return n
}

// table logs how scenarios went, and writes it beside the images, for make to show.
func (l *lab) table(t *testing.T, mesh network.Mesh, results []scenarios.Result) {
	t.Helper()
	var text bytes.Buffer
	if err := scenarios.Table(&text, results); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &text)
	if err := os.WriteFile(filepath.Join(l.images, fmt.Sprintf("scenarios-%s.txt", mesh)), text.Bytes(), 0o644); err != nil {
		t.Error(err)
	}
}
