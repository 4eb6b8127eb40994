package reset

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asked is a request that notes whether it stands.
type asked struct{ by string }

func (a *asked) Ask(by string) error { a.by = by; return nil }
func (a *asked) Withdraw() (by string, err error) {
	by, a.by = a.by, ""
	return by, nil
}

func TestAResetThatDoesNotFollowIsWithdrawn(t *testing.T) {
	for name, tc := range map[string]struct {
		reboot func(context.Context) error
		ends   bool // the process does, as at a start
		stands bool
		after  time.Duration
		want   string
	}{
		"it starts anew":    {func(context.Context) error { return nil }, true, true, time.Minute, "canceled"},
		"it is refused":     {func(context.Context) error { return errors.New("no such socket") }, false, false, 0, "no such socket"},
		"it never comes":    {func(context.Context) error { return nil }, false, false, Patience, "goes on after 3m0s"},
		"nobody answers":    {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, false, false, Patience, "deadline"},
		"it ends meanwhile": {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, true, true, time.Minute, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.ends {
					time.AfterFunc(time.Minute, cancel)
				}
				r, begin := &asked{"button"}, time.Now()
				err := Restart(ctx, r, tc.reboot)
				if err == nil || !strings.Contains(err.Error(), tc.want) || time.Since(begin) != tc.after || (r.by != "") != tc.stands {
					t.Errorf("got %v after %v, and it stands for %q", err, time.Since(begin), r.by)
				}
			})
		})
	}
}
