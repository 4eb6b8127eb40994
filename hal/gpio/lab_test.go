//go:build lab

package gpio_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"halo.internal/hal/gpio"
	"halo.internal/lab/testvm"
)

// The test machine has a chip of eight lines (pl061), of which one is its power
// button.
func TestMain(m *testing.M) { testvm.Main(m, testvm.Options{}) }

// state is what the kernel says of a line: its user, direction and level.
func state(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/sys/kernel/debug/gpio")
	if err != nil {
		t.Fatal(err)
	}
	// The kernel numbers all lines of the machine through, from where it likes.
	first := regexp.MustCompile(`gpiochip0: GPIOs (\d+)-`).FindSubmatch(b)
	if first == nil {
		t.Fatalf("expected gpiochip0 and its numbers, got %s", b)
	}
	base, err := strconv.Atoi(string(first[1]))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, fmt.Sprintf(" gpio-%d ", base+5)) {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

func TestLineOfTheKernel(t *testing.T) {
	l, err := gpio.Open("gpiochip0/5")
	if err != nil {
		t.Fatal(err)
	}
	if s := state(t); s != "" && strings.Contains(s, "out") {
		t.Errorf("an opened line is driven: %s", s)
	}
	for _, high := range []bool{true, false} {
		if err := l.Drive(high); err != nil {
			t.Fatal(err)
		}
		level := map[bool]string{true: "out hi", false: "out lo"}[high]
		if s := state(t); !strings.Contains(s, level) {
			t.Errorf("driven: the kernel says %q, want %q", s, level)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if s := state(t); strings.Contains(s, "out") {
		t.Errorf("released: the kernel says %q", s)
	}
	if err := gpio.Pulse(t.Context(), l, true, time.Millisecond); err != nil {
		t.Errorf("a pulse after a release: %v", err)
	}
	if _, err := gpio.Open("GPIO17"); err == nil || !strings.Contains(err.Error(), "there is none of that name on gpiochip0") || !strings.Contains(err.Error(), "8 lines") {
		t.Errorf("a line of another board: %v", err)
	}
}
