package collect

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUndervoltage(t *testing.T) {
	root := t.TempDir()
	if r, err := newUndervoltage(root).Collect(t.Context()); err != nil || r != nil {
		t.Errorf("a kernel without monitors: got %v, %v", r, err)
	}
	put := func(monitor, file, text string) {
		t.Helper()
		dir := filepath.Join(root, "sys/class/hwmon", monitor)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("hwmon0", "name", "cpu_thermal\n")
	if r, err := newUndervoltage(root).Collect(t.Context()); err != nil || r != nil {
		t.Errorf("another monitor: got %v, %v", r, err)
	}
	put("hwmon1", "name", "rpi_volt\n")
	for text, want := range map[string]float64{"0\n": 0, "1\n": 1} {
		put("hwmon1", "in0_lcrit_alarm", text)
		r, err := newUndervoltage(root).Collect(t.Context())
		if err != nil || len(r) != 1 || r[0].Metric.Name != "power.supply.undervoltage" || r[0].Metric.Number(r[0].Value) != want || r[0].Urgent != (want == 1) {
			t.Errorf("%q: got %+v, %v", text, r, err)
		}
	}
	put("hwmon1", "in0_lcrit_alarm", "maybe\n")
	if r, err := newUndervoltage(root).Collect(t.Context()); err == nil {
		t.Errorf("got %+v of nonsense", r)
	}
}
