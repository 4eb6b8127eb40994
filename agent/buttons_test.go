package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/spool"
	"halo.internal/hal/card"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// asked is the request for a reset.
type asked struct {
	by  string
	err error
}

func (a *asked) Ask(by string) error              { a.by = by; return a.err }
func (a *asked) Withdraw() (by string, err error) { return a.by, a.err }

// A process that ends before the machine has started anew leaves a request: the next one
// withdraws it, and the gateway hears of that.
func TestAnOldRequestIsWithdrawn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	open := func() (disk, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) }
	f, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler)}}
	a.reset = &request{open: open, note: a.noteWithdrawn}
	a.withdrawOld()
	if len(a.news.early) != 0 {
		t.Error("what nobody has asked for is withdrawn")
	}
	if err := a.reset.Ask("button b"); err != nil {
		t.Fatal(err)
	}
	a.withdrawOld()
	if by, err := card.NewReset(f).Begin(card.NewVault(f)); by != "" || err != nil {
		t.Errorf("the next start resets for %q, %v", by, err)
	}
	if len(a.news.early) != 1 {
		t.Errorf("%d events, want one", len(a.news.early))
	}
}

// The gateway hears of a reset before the node forgets it, and a node that does not reach
// it is reset all the same.
func TestAFactoryResetIsToldBefore(t *testing.T) {
	for name, tc := range map[string]struct {
		acked bool
		after time.Duration // at which the machine starts anew
	}{
		"within reach": {true, 3 * time.Second}, "out of reach": {false, tellWait},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				quiet := slog.New(slog.DiscardHandler)
				s, err := spool.Open(spool.Options{Live: filepath.Join(dir, "run"), Disk: filepath.Join(dir, "perm"), Boot: 1, Owner: spool.Owner{Network: "k", Node: "n-x"}, Budget: 1 << 20, Delay: time.Minute,
					Clock: func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockGateway }, Log: quiet})
				if err != nil {
					t.Fatal(err)
				}
				a := &agent{Config: Config{Log: quiet}, news: news{spool: s}}
				begin, r := time.Now(), &asked{}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.acked {
					time.AfterFunc(3*time.Second-time.Millisecond, func() {
						for _, i := range s.Items() {
							s.Ack(i.Kind, []wire.BatchID{i.ID})
						}
					})
				}
				err = a.startOver(ctx, "button b", r, func(context.Context) error {
					if d := time.Since(begin); d != tc.after {
						t.Errorf("it starts anew after %v, want %v", d, tc.after)
					}
					cancel() // the machine ends, and with it this process
					return nil
				})
				if !errors.Is(err, context.Canceled) || r.by != "button b" {
					t.Errorf("got %v, asked by %q", err, r.by)
				}
			})
		})
	}
	broken := errors.New("the card takes nothing")
	a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler)}}
	err := a.startOver(t.Context(), "b", &asked{err: broken}, func(context.Context) error { t.Error("it starts anew for nothing"); return nil })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestCodesOfTheStatusLamp(t *testing.T) {
	member := model.MeshStatus{Network: "valley", Joined: true}
	for name, tc := range map[string]struct {
		mesh             model.MeshStatus
		answers, reached bool
		want             int
	}{
		"at the start":        {model.MeshStatus{}, false, false, codeMesh},
		"without halo-mesh":   {member, false, true, codeMesh},
		"nothing is kept":     {model.MeshStatus{Network: "valley", Joined: true, Volatile: true}, true, true, codeVolatile},
		"online":              {member, true, true, codeOnline},
		"out of reach":        {member, true, false, codeUnreachable},
		"waits for admission": {model.MeshStatus{Network: "valley"}, true, false, codeOutside},
		"a blank card":        {model.MeshStatus{}, true, false, codeBlank},
	} {
		if got := code(tc.mesh, tc.answers, tc.reached); got != tc.want {
			t.Errorf("%s: %d flashes, want %d", name, got, tc.want)
		}
	}
}
