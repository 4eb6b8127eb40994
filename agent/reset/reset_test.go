package reset

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/hal/gpio"
)

// pin is a line that a test presses.
type pin struct {
	high  bool
	edges chan struct{}
	err   error
}

func (p *pin) High() (bool, error) { return p.high, p.err }

func (p *pin) Wait(ctx context.Context) (gpio.Edge, error) {
	select {
	case <-ctx.Done():
		return gpio.Edge{}, ctx.Err()
	case <-p.edges:
		return gpio.Edge{}, p.err
	}
}

func (p *pin) set(high bool) {
	p.high = high
	select {
	case p.edges <- struct{}{}:
	default: // a burst: the level counts
	}
	synctest.Wait()
}

func TestButton(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(p *pin)
		want string
	}{
		"held and let go of":       {func(p *pin) { p.set(false); time.Sleep(12 * time.Second); p.set(true) }, "reset"},
		"pressed before the start": {func(p *pin) { time.Sleep(12 * time.Second); p.set(true) }, "reset"},
		"too short":                {func(p *pin) { p.set(false); time.Sleep(9 * time.Second); p.set(true); time.Sleep(time.Minute) }, ""},
		"short, again and again": {func(p *pin) {
			for range 20 {
				p.set(false)
				time.Sleep(2 * time.Second)
				p.set(true)
				time.Sleep(time.Second)
			}
		}, ""},
		"left on":            {func(p *pin) { p.set(false); time.Sleep(time.Hour) }, "stuck"},
		"left on, taken off": {func(p *pin) { p.set(false); time.Sleep(time.Hour); p.set(true); time.Sleep(time.Hour) }, "stuck"},
		"taken off, and again": {func(p *pin) {
			p.set(false)
			time.Sleep(time.Hour)
			p.set(true)
			p.set(false)
			time.Sleep(15 * time.Second)
			p.set(true)
		}, "stuck reset"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pin{high: name != "pressed before the start", edges: make(chan struct{}, 1)}
				var done []string
				lit := false
				b := Button{Name: "b", Pin: p, Hold: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
					Lamps: func(ctx context.Context, _ time.Duration) { lit = true; <-ctx.Done(); lit = false },
					Reset: func(string) error { done = append(done, "reset"); return nil }, Stuck: func() { done = append(done, "stuck") }}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- b.Run(ctx) }()
				synctest.Wait()
				tc.do(p)
				synctest.Wait()
				if got := strings.Join(done, " "); got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("it ended with %v", err)
				}
				if lit {
					t.Error("the lamps blink on")
				}
			})
		})
	}
}

func TestLineThatIsGone(t *testing.T) {
	gone := errors.New("no such device")
	b := Button{Pin: &pin{err: gone}, Log: slog.New(slog.DiscardHandler)}
	if err := b.Run(t.Context()); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestRhythm(t *testing.T) {
	last := time.Hour
	for s := range 12 {
		now := Rhythm(time.Duration(s)*time.Second, 10*time.Second)
		if now > last || now < 50*time.Millisecond {
			t.Errorf("after %d s: %v, before %v", s, now, last)
		}
		last = now
	}
}
