package support

import (
	"os"
	"strings"
	"testing"
)

func TestProcesses(t *testing.T) {
	b, err := Processes("/proc")
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range lines[1:] {
		if f := strings.Fields(line); len(f) < 8 {
			t.Errorf("expected eight columns, got %q", line)
		}
	}
	if own := strings.TrimSpace(string(name)); !strings.Contains(string(b), " "+own+" ") {
		t.Errorf("expected %s to be listed, got %s", own, b)
	}
	if _, err := Processes(t.TempDir() + "/none"); err == nil {
		t.Error("expected an error without /proc, got none")
	}
}
