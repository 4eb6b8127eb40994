//go:build lab

package gpio_test

import (
	"context"
	"errors"
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
func TestMain(m *testing.M) { testvm.Main(m, testvm.Options{Modules: []string{"gpio_keys"}}) }

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
	again, err := gpio.Open("9030000.pl061/5") // the chip by its label
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Drive(true); err != nil {
		t.Fatal(err)
	}
	if taken, ok := errors.AsType[*gpio.TakenError](again.Drive(true)); !ok || taken.By != "halo" {
		t.Errorf("a line that is taken: got %v", taken)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := gpio.Open("GPIO17"); err == nil || !strings.Contains(err.Error(), "there is none of that name on gpiochip0") || !strings.Contains(err.Error(), "8 lines") {
		t.Errorf("a line of another board: %v", err)
	}
}

// The chip has pull-ups, and nothing is connected: whoever drives a line low hears of it
// on that line alone, so that inputs are asked for their level, and waits end as they
// are told.
func TestInputsOfTheKernel(t *testing.T) {
	in, err := gpio.OpenInput("gpiochip0/6", gpio.InputOptions{Edges: true, Debounce: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.High(); err != nil {
		t.Errorf("level: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, err := in.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an edge of nothing: %+v, %v", e, err)
	}
	_, err = gpio.OpenInput("gpiochip0/3", gpio.InputOptions{})
	if taken, ok := errors.AsType[*gpio.TakenError](err); !ok || taken.By == "" {
		t.Errorf("the power button's line: got %v, want it to be taken by somebody who is named", err)
	}
	d, err := gpio.OpenDrain("gpiochip0/5")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Pull(true); err != nil {
		t.Error(err)
	}
	if high, err := d.High(); err != nil || high {
		t.Errorf("a line that is pulled low is %v, %v", high, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
