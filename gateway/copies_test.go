package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/paths"
)

// Each case is a start of the gateway and the times after it at which copies
// are made.
func TestCopies(t *testing.T) {
	const never = -1
	for _, tc := range []struct {
		name string
		age  time.Duration // of the newest copy; never: there is none
		fail int           // how many copies cannot be made
		do   func(c *copies, nodes chan<- struct{})
		span time.Duration
		want []time.Duration
	}{
		{"no copy yet", never, 0, nil, 25 * time.Hour, []time.Duration{copySettle, copySettle + copyAtLeast}},
		{"up for eight hours a day", 20 * time.Hour, 0, nil, 8 * time.Hour, []time.Duration{4 * time.Hour}},
		{"an old copy", 30 * 24 * time.Hour, 0, nil, time.Hour, []time.Duration{copySettle}},
		{"a copy from the future", -time.Hour, 0, nil, time.Hour, []time.Duration{copySettle}},
		{"a failed copy is tried again", 30 * time.Hour, 2, nil, time.Hour, []time.Duration{copySettle, copySettle + copyRetry, copySettle + 2*copyRetry}},
		{"a change", 0, 0, func(c *copies, _ chan<- struct{}) { c.request() }, time.Hour, []time.Duration{copySettle}},
		{"a join", 0, 0, func(_ *copies, nodes chan<- struct{}) { nodes <- struct{}{} }, time.Hour, []time.Duration{copySettle}},
		{"many changes", 0, 0, func(c *copies, _ chan<- struct{}) {
			for range 100 {
				c.request()
				time.Sleep(time.Minute)
			}
		}, 3 * time.Hour, []time.Duration{copySettle, copySettle + copyAtMost, copySettle + 2*copyAtMost}},
		{"withdrawals soon after changes", 0, 0, func(c *copies, _ chan<- struct{}) {
			c.request()
			time.Sleep(10 * time.Minute)
			c.withdrawn()
			time.Sleep(10 * time.Second)
			c.withdrawn()
		}, time.Hour, []time.Duration{copySettle, 10*time.Minute + copyPrompt, 10*time.Minute + copyPrompt + promptPause}},
		{"a withdrawal soon after a daily copy", 24 * time.Hour, 0, func(c *copies, _ chan<- struct{}) {
			time.Sleep(copySettle + time.Second)
			c.withdrawn()
		}, time.Hour, []time.Duration{copySettle, copySettle + time.Second + copyPrompt}},
		{"a stop while a withdrawal waits", 0, 0, func(c *copies, _ chan<- struct{}) {
			c.withdrawn()
			time.Sleep(time.Minute)
			c.withdrawn()
		}, 2 * time.Minute, []time.Duration{copyPrompt, 2*time.Minute + time.Second}},
		{"a stop right after a withdrawal", 0, 0, func(c *copies, _ chan<- struct{}) {
			time.Sleep(time.Minute + time.Second)
			c.withdrawn()
		}, time.Minute, []time.Duration{time.Minute + time.Second}},
		{"a stop after a withdrawal whose copy failed", 0, 1, func(c *copies, _ chan<- struct{}) { c.withdrawn() },
			time.Minute, []time.Duration{copyPrompt, time.Minute + time.Second}},
		{"a stop while a change waits", 0, 0, func(c *copies, _ chan<- struct{}) { c.request() }, copySettle / 2, nil},
		{"many withdrawals", 0, 0, func(c *copies, _ chan<- struct{}) {
			for range 120 {
				c.withdrawn()
				time.Sleep(5 * time.Second)
			}
		}, time.Hour, []time.Duration{copyPrompt, copyPrompt + promptPause, copyPrompt + 2*promptPause}},
		{"withdrawals while there is no room", 0, 2, func(c *copies, _ chan<- struct{}) {
			for range 120 {
				c.withdrawn()
				time.Sleep(5 * time.Second)
			}
		}, time.Hour, []time.Duration{copyPrompt, copyPrompt + copyRetry, copyPrompt + 2*copyRetry}},
		{"a withdrawal before a restart", 0, 0, func(c *copies, _ chan<- struct{}) { c.catchUp(store.Lag{Change: true, Withdrawal: true}) }, time.Hour, []time.Duration{copyPrompt}},
		{"a change before a restart", 0, 0, func(c *copies, _ chan<- struct{}) { c.catchUp(store.Lag{Change: true}) }, time.Hour, []time.Duration{copySettle}},
		{"nothing before a restart", 0, 0, func(c *copies, _ chan<- struct{}) { c.catchUp(store.Lag{}) }, time.Hour, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var last time.Time
				if tc.age != never {
					last = begin.Add(-tc.age)
				}
				var got []time.Duration
				nodes := make(chan struct{}, 1)
				c := newCopies(func(ctx context.Context) error {
					if err := ctx.Err(); err != nil {
						return err
					}
					got = append(got, time.Since(begin))
					if len(got) <= tc.fail {
						return errors.New("no room")
					}
					return nil
				}, last, nodes, slog.New(slog.DiscardHandler))
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- c.run(ctx) }()
				if tc.do != nil {
					tc.do(c, nodes)
				}
				time.Sleep(tc.span - time.Since(begin) + time.Second)
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("copies at %v, want %v", got, tc.want)
				}
			})
		})
	}
}

// inside makes requests of a gateway in this process, as over the loopback.
type inside struct{ http.Handler }

func (i inside) RoundTrip(r *http.Request) (*http.Response, error) {
	local := &net.TCPAddr{IP: net.IPv6loopback, Port: paths.APIPort}
	in := r.Clone(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	in.RemoteAddr = "[::1]:40000"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	i.ServeHTTP(w, in)
	return w.Result(), nil
}

// A claim uses the code up: a copy that still has it would let somebody else
// claim the gateway after a restore.
func TestNoCopyHasTheCodeOfAClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		console := &output{}
		d := newDaemon(Laptop(t.TempDir(), nil, console, slog.New(slog.DiscardHandler)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.run(ctx) }()
		time.Sleep(copySettle + time.Minute) // the first start's copy
		code := printedCode(t, console)
		newest := d.State.File(paths.ConfigDB) + ".copy-1"
		has := func() bool {
			t.Helper()
			b, err := os.ReadFile(newest)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(code)) {
				t.Error("the code is in the clear")
			}
			return bytes.Contains(b, []byte("claim code")) // the name of what is sealed
		}
		if !has() {
			t.Fatal("the copy of an unclaimed gateway has no claim code: this test shows nothing")
		}
		api := &client{t: t, base: "http://localhost", http: http.Client{Transport: inside{d}}}
		api.claim(code)
		time.Sleep(copyPrompt + time.Second)
		synctest.Wait()
		if has() {
			t.Error("a copy still has the code of a gateway that was claimed")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
