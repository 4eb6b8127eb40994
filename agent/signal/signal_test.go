package signal

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lamps is a class directory with two of them. The kernel would show the trigger in
// brackets again once it is set: power does.
type lamps struct {
	t     *testing.T
	class string
}

func newLamps(t *testing.T) lamps {
	t.Helper()
	l := lamps{t, t.TempDir()}
	for _, name := range []string{"ACT", "PWR"} {
		for f, v := range map[string]string{"trigger": "none timer [mmc0]", "brightness": "0", "max_brightness": "255"} {
			l.put(name, f, v)
		}
	}
	return l
}

func (l lamps) put(name, file, v string) {
	l.t.Helper()
	path := filepath.Join(l.class, name, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(v), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l lamps) get(name, file string) string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.class, name, file))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// watch looks at ACT each 50 ms, and draws what it sees.
func (l lamps) watch(d time.Duration) string {
	var seen strings.Builder
	for range d / (50 * time.Millisecond) {
		time.Sleep(25 * time.Millisecond)
		synctest.Wait()
		seen.WriteByte(map[string]byte{"0": '.', "255": '#'}[l.get("ACT", "brightness")])
		time.Sleep(25 * time.Millisecond)
	}
	return seen.String()
}

func TestLampsSayHowTheDeviceIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := newLamps(t)
		var code atomic.Int32
		code.Store(2)
		l := New(Config{Class: board.class, Names: func() []string { return []string{"ACT", "of another board"} }, Code: func() int { return int(code.Load()) }, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); l.Run(ctx) }()

		two, one, dark := "###.......###", "###", strings.Repeat(".", 50)
		got := board.watch(3 * time.Second)
		code.Store(1) // for the turn after this one
		if got += board.watch(150 * time.Millisecond); got != two+dark {
			t.Errorf("two flashes: got\n%s, want\n%s", got, two+dark)
		}
		if got := board.watch(2650 * time.Millisecond); got != one+dark {
			t.Errorf("one flash: got\n%s, want\n%s", got, one+dark)
		}
		if got := board.get("PWR", "trigger"); got != "none timer [mmc0]" {
			t.Errorf("a lamp that shows no status: %s", got)
		}

		// Others have the lamps first, as they were before.
		first, second := l.Take(), l.Take()
		if got := board.get("ACT", "trigger"); got != "mmc0" {
			t.Errorf("taken: the trigger is %s, want mmc0", got)
		}
		board.put("ACT", "trigger", "none timer [mmc0]")
		board.put("ACT", "brightness", "0")
		first()
		if got := board.watch(40 * time.Second); strings.Contains(got, "#") {
			t.Errorf("it flashes while somebody else has the lamps: %s", got)
		}
		second()
		second() // once is enough
		if got := board.watch(2650 * time.Millisecond); got != one+dark {
			t.Errorf("given back: got\n%s, want\n%s", got, one+dark)
		}
		cancel()
		<-ended
		if got := board.get("ACT", "trigger"); got != "mmc0" {
			t.Errorf("at the end the trigger is %s, want mmc0", got)
		}
		l.Take()() // nobody shows anything any more
	})
}

func TestABoardWithoutLamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		class := filepath.Join(t.TempDir(), "none")
		l := New(Config{Class: class, Names: func() []string { return []string{"ACT"} }, Code: func() int { return 1 }, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l.Run(ctx)
		if _, err := os.Stat(class); err == nil {
			t.Error("it made lamps")
		}
	})
}
