package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model/apitype"
)

// Turns go round among callers, however many questions one of them has.
func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all turns
		var mu sync.Mutex // guards order
		var order []string
		ask := func(caller string) {
			go func() {
				release, err := all.take(t.Context(), caller, time.Hour)
				if err != nil {
					t.Errorf("%s: %v", caller, err)
					return
				}
				mu.Lock()
				order = append(order, caller)
				mu.Unlock()
				time.Sleep(time.Second)
				release()
			}()
			synctest.Wait()
		}
		for range largeWaiting {
			ask("greedy")
		}
		if _, err := all.take(t.Context(), "greedy", time.Hour); !errors.Is(err, errTooMany) {
			t.Errorf("one more: got %v", err)
		}
		for _, other := range []string{"a", "b", "c", "a"} {
			ask(other)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if at := slices.Index(order, "a"); len(order) != largeWaiting+4 || order[0] != "greedy" || at != 1 || slices.Index(order, "c") > 5 || slices.Index(order[at+1:], "a") > 7 {
			t.Errorf("got %q", order)
		}
		if all.running != 0 || len(all.of) != 0 || len(all.order) != 0 {
			t.Errorf("left is %+v", &all)
		}
	})
}

// No more than so many are answered at a time, and whoever gives up leaves nothing behind.
func TestTurnsThatAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all turns
		var ends []func()
		for k := range largeAtOnce {
			release, err := all.take(t.Context(), fmt.Sprint("busy ", k), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, release)
		}
		began := time.Now()
		if _, err := all.take(t.Context(), "a", turnPatience); !errors.Is(err, errNoTurn) || time.Since(began) != turnPatience {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := all.take(ctx, "b", time.Hour)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for _, end := range ends {
			end()
			end()
		}
		if all.running != 0 || len(all.of) != 0 || len(all.order) != 0 {
			t.Errorf("left is %+v", &all)
		}
	})
}

func TestLooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a API
		of := func(actor string) context.Context {
			return context.WithValue(t.Context(), callerKey{}, &caller{actor: actor})
		}
		want := func(err error, status int) {
			t.Helper()
			p, ok := errors.AsType[*apitype.Problem](err)
			if !ok || p.Status != status || p.RetryAfter() == 0 {
				t.Errorf("got %v, want %d and when to come again", err, status)
			}
		}
		nothing := func(context.Context) error { return nil }
		// A large one ends after its time, and says what would not take as long.
		err := a.look(of("slow"), smallCost+1, func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("a scan: %w", ctx.Err())
		})
		if want(err, http.StatusServiceUnavailable); !strings.Contains(err.Error(), "900") {
			t.Error(err)
		}
		// With the request at the latest.
		ctx, cancel := context.WithCancel(of("gone"))
		cancel()
		if err := a.look(ctx, smallCost, func(ctx context.Context) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		// While others have the turns, small ones are answered.
		for k := range largeAtOnce {
			go func() {
				if err := a.look(of(fmt.Sprint("busy ", k)), 10*smallCost, func(ctx context.Context) error {
					time.Sleep(largeLongest / 2)
					return nil
				}); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		if err := a.look(of("a"), smallCost, nothing); err != nil {
			t.Error(err)
		}
		want(a.look(of("b"), smallCost+1, nothing), http.StatusServiceUnavailable)
		time.Sleep(largeLongest)
		if err := a.look(of("b"), smallCost+1, nothing); err != nil {
			t.Error(err)
		}
		// Small ones have a pace of what they read.
		for range lookups.burst / smallCost {
			if err := a.look(of("many"), smallCost, nothing); err != nil {
				t.Fatal(err)
			}
		}
		want(a.look(of("many"), smallCost, nothing), http.StatusTooManyRequests)
		if err := a.look(of("another"), smallCost, nothing); err != nil {
			t.Error(err)
		}
	})
}
