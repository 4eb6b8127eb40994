package led

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// board makes a class directory as a Raspberry Pi 4's with a keyboard and the
// lamps of its Ethernet port.
func board(t *testing.T) string {
	t.Helper()
	class := t.TempDir()
	for name, files := range map[string]map[string]string{
		"ACT":              {"trigger": "none rc-feedback timer [mmc0] heartbeat\n", "brightness": "0\n", "max_brightness": "255\n"},
		"PWR":              {"trigger": "none timer mmc0 [default-on]\n", "brightness": "255\n", "max_brightness": "255\n"},
		"status":           {"trigger": "[none] timer\n", "brightness": "1\n", "max_brightness": "1\n"},
		"green:alive":      {"trigger": "none [timer]\n", "brightness": "1\n", "max_brightness": "1\n", "delay_on": "30\n", "delay_off": "900\n"},
		"input3::capslock": {"trigger": "[none] kbd-capslock\n", "brightness": "0\n", "max_brightness": "1\n"},
		"unimac:01:lan":    {"trigger": "none [netdev]\n", "brightness": "0\n", "max_brightness": "1\n"},
		"broken":           {"brightness": "0\n"},
	} {
		for f, v := range files {
			path := filepath.Join(class, name, f)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(v), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return class
}

func value(t *testing.T, class, name, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(class, name, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestLEDsBlinkAndShowWhatTheyDidBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		class := board(t)
		leds, err := Find(class)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range leds {
			names = append(names, l.Name)
		}
		if d := cmp.Diff([]string{"ACT", "PWR", "green:alive", "status"}, names); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
		before, err := States(leds)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1600*time.Millisecond)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- Blink(ctx, leds) }()
		var seen strings.Builder
		for range 16 { // in the middle of each tenth of a second
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
			if value(t, class, "ACT", "trigger") != "none" {
				t.Error("the kernel still drives the LED")
			}
			if value(t, class, "ACT", "brightness") == "255" {
				seen.WriteByte('#')
			} else {
				seen.WriteByte('.')
			}
			if on := value(t, class, "status", "brightness") == "1"; on != strings.HasSuffix(seen.String(), "#") {
				t.Error("LEDs blink each on its own")
			}
			time.Sleep(50 * time.Millisecond)
		}
		if got, want := seen.String(), "#.#.....#.#....."; got != want {
			t.Errorf("it blinks %s, want %s", got, want)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := Restore(class, before); err != nil {
			t.Fatal(err)
		}
		for _, tc := range [][3]string{
			{"ACT", "trigger", "mmc0"}, {"PWR", "trigger", "default-on"}, {"status", "trigger", "none"}, {"status", "brightness", "1"},
			{"green:alive", "trigger", "timer"}, {"green:alive", "delay_on", "30"}, {"green:alive", "delay_off", "900"},
			{"input3::capslock", "trigger", "[none] kbd-capslock"}, {"unimac:01:lan", "trigger", "none [netdev]"},
		} {
			if got := value(t, class, tc[0], tc[1]); got != tc[2] {
				t.Errorf("%s of %s is %q, want %q", tc[1], tc[0], got, tc[2])
			}
		}
	})
}

func TestABoardWithoutLEDs(t *testing.T) {
	for name, class := range map[string]string{"no class": filepath.Join(t.TempDir(), "leds"), "an empty one": t.TempDir()} {
		if _, err := Find(class); !errors.Is(err, ErrNone) {
			t.Errorf("%s: got %v, want ErrNone", name, err)
		}
	}
}

// A lamp on an adapter that is unplugged while it blinks does not keep the others
// from it, nor from being restored.
func TestAnLEDThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		class := board(t)
		leds, err := Find(class)
		if err != nil {
			t.Fatal(err)
		}
		before, err := States(leds)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- Blink(ctx, leds) }()
		synctest.Wait()
		if err := os.RemoveAll(filepath.Join(class, "status")); err != nil {
			t.Fatal(err)
		}
		err = <-done
		if err == nil || !strings.Contains(err.Error(), "status") || ctx.Err() == nil {
			t.Errorf("got %v, with ctx %v: want an error about it when the time is over", err, ctx.Err())
		}
		if err := Restore(class, before); err != nil {
			t.Error(err)
		}
		if got := value(t, class, "ACT", "trigger"); got != "mmc0" {
			t.Errorf("ACT's trigger is %q", got)
		}
	})
}

// What was kept for Restore may have been written by anybody who can write there;
// it leads nowhere else.
func TestRestoreStaysInTheClass(t *testing.T) {
	class := board(t)
	outside := filepath.Join(filepath.Dir(class), "other")
	if err := os.MkdirAll(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "trigger"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Restore(class, []State{{Name: "../other", Trigger: "none"}}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "trigger")); err != nil || string(b) != "mine" {
		t.Errorf("got %q, %v", b, err)
	}
}
