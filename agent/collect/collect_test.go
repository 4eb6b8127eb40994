package collect

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"

	"halo.internal/model"
	"halo.internal/model/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden reads recorded /proc and /sys trees: what is in the tree above,
// what comes of it in golden.txt beside it.
func TestGolden(t *testing.T) {
	for _, board := range []string{"pi4", "qemu"} {
		t.Run(board, func(t *testing.T) {
			root := filepath.Join("testdata", board)
			set, err := All(root, "/perm")
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range set {
				if s, ok := c.(storage); ok {
					s.statfs = func(path string) (uint64, uint64, error) {
						if path != "/perm" {
							t.Errorf("asked for %s, want /perm", path)
						}
						return 30 << 30, 20 << 30, nil
					}
					set[i] = s
				}
			}
			readings, err := collectAll(t, set)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			var s wire.Schema
			for _, r := range readings {
				s.Metrics = append(s.Metrics, r.Metric)
				fmt.Fprintf(&text, "%-32s %g %s", r.Metric.Name, r.Metric.Number(r.Value), r.Metric.Unit)
				if r.Urgent {
					text.WriteString(" urgent")
				}
				text.WriteString("\n")
			}
			if err := s.Check(); err != nil {
				t.Error(err)
			}
			golden := filepath.Join(root, "golden.txt")
			if *update {
				if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), text.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// collectAll reads a set as halo-agent does.
func collectAll(t *testing.T, set Set) ([]Reading, error) {
	t.Helper()
	a := NewApart(func(kind string, _ model.Severity, message string, _ map[string]string) {
		t.Errorf("%s: %s", kind, message)
	})
	for _, c := range set {
		if err := a.Add(c, Pace{Every: time.Second, Limit: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	return a.Collect(t.Context(), time.Second)
}

func TestCPUMeasuresBetweenCalls(t *testing.T) {
	root := t.TempDir()
	proc := filepath.Join(root, "proc")
	if err := os.MkdirAll(filepath.Join(root, "sys"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(proc, 0o755); err != nil {
		t.Fatal(err)
	}
	stat := func(line string) {
		if err := os.WriteFile(filepath.Join(proc, "stat"), []byte(line+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stat("cpu  1000 0 0 9000 0 0 0 0 0 0")
	set, err := All(root, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		line       string
		used, wait int64
	}{
		{"cpu  1000 0 0 9000 0 0 0 0 0 0", 100, 0},
		{"cpu  1060 0 0 9020 20 0 0 0 0 0", 600, 200},
		{"cpu  1060 0 0 9020 20 0 0 0 0 0", 0, 0},    // no time went by
		{"cpu  1160 0 0 9000 20 0 0 0 0 0", 1000, 0}, // idle stepped back
	} {
		stat(step.line)
		r, err := set[0].Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r[0].Value.Bits != step.used || r[1].Value.Bits != step.wait {
			t.Errorf("%s: got %d and %d permille, want %d and %d", step.line, r[0].Value.Bits, r[1].Value.Bits, step.used, step.wait)
		}
	}
}

func TestOneBrokenCollectorSilencesNoOther(t *testing.T) {
	set, err := All(filepath.Join("testdata", "qemu"), "/does/not/exist")
	if err != nil {
		t.Fatal(err)
	}
	readings, err := collectAll(t, set)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "storage: /does/not/exist") {
		t.Errorf("got %v, want the storage collector's error", err)
	}
	var names []string
	for _, r := range readings {
		names = append(names, r.Metric.Name)
	}
	all := strings.Join(names, " ")
	for _, want := range []string{"system.cpu.used_percent", "storage.vda.written_kib", "system.host.uptime_s"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is missing from %s", want, all)
		}
	}
}

func TestLiveSystem(t *testing.T) {
	set, err := All("/", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	readings, err := collectAll(t, set)
	if err != nil {
		t.Fatal(err)
	}
	var s wire.Schema
	for _, r := range readings {
		s.Metrics = append(s.Metrics, r.Metric)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

func TestProcessorTimeOfProcesses(t *testing.T) {
	root := t.TempDir()
	stat := func(pid int, name string, user, system int) {
		t.Helper()
		dir := filepath.Join(root, strconv.Itoa(pid))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%d (%s) S 1 1 1 0 -1 0 0 0 0 0 %d %d 0 0 20 0 9 0 500 1000000 256 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", pid, name, user, system)
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := procfs.NewFS(root)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcesses(fs)
	now := time.Now()
	p.now = func() time.Time { return now }
	percent := func(name string) (wire.Value, bool) {
		t.Helper()
		list, err := p.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.Metric.Name == "process."+name+".cpu_percent" {
				return r.Value, true
			}
		}
		return wire.Value{}, false
	}
	stat(7, "halo-mesh", 1000, 500)
	if v, ok := percent("halo-mesh"); ok {
		t.Errorf("expected nothing before there is a time to tell it of, got %v", v)
	}
	stat(7, "halo-mesh", 1030, 520)
	now = now.Add(10 * time.Second)
	if v, _ := percent("halo-mesh"); v != wire.Int(50) {
		t.Errorf("expected 0.5 s of 10 s, 5.0 %%, got %v", v)
	}
	if err := os.RemoveAll(filepath.Join(root, "7")); err != nil { // it restarts
		t.Fatal(err)
	}
	stat(9, "halo-mesh", 90, 10)
	now = now.Add(10 * time.Second)
	if v, _ := percent("halo-mesh"); v != wire.Int(100) {
		t.Errorf("expected the 1 s that the new one had, 10.0 %%, got %v", v)
	}
	// A number that was another's is HALO's when it is looked at anew.
	stat(12, "kworker/u4:1", 900, 900)
	now = now.Add(10 * time.Second)
	if v, _ := percent("halo-mesh"); v != wire.Int(0) {
		t.Errorf("expected nothing of a thread of the kernel, got %v", v)
	}
	stat(12, "halo-agent", 20, 0)
	for range 6 {
		now = now.Add(10 * time.Second)
		if _, ok := percent("halo-agent"); ok {
			return
		}
	}
	t.Error("expected halo-agent within a minute of the number's being its")
}
