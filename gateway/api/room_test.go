package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/telemetry"
	"halo.internal/model/apitype"
)

// sluggish is a client that reads nothing of an answer until it is told to.
type sluggish struct {
	*httptest.ResponseRecorder
	waits chan int // octets that wait
	read  chan struct{}
	done  chan struct{}
}

func (s *sluggish) Write(b []byte) (int, error) {
	if s.Code == http.StatusOK {
		s.waits <- len(b)
		<-s.read
	}
	return s.ResponseRecorder.Write(b)
}

// sluggishly asks, and returns how many octets of the answer wait; 0: it was refused.
func (f *fixture) sluggishly(token, path string) (*sluggish, int) {
	f.t.Helper()
	ctx := context.WithValue(f.t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	r := httptest.NewRequestWithContext(ctx, "GET", "http://127.0.0.1"+path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	s := &sluggish{httptest.NewRecorder(), make(chan int, 1), make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(s.done)
		f.ServeHTTP(s, r)
	}()
	select {
	case n := <-s.waits:
		return s, n
	case <-s.done:
		return s, 0
	}
}

// TestSlowReadersDoNotFillTheRAM: whoever asks for large answers and does not read them gets
// no more of them, while others get theirs.
func TestSlowReadersDoNotFillTheRAM(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.measured()
	register(f.API, anybody, huma.Operation{OperationID: "odd-large", Method: http.MethodGet, Path: "/odd/large", Tags: []string{"system"}}, func(context.Context, *nothing) (*body[string], error) {
		return answer(strings.Repeat("x", 1<<20), nil)
	})
	token := func() string {
		t.Helper()
		var made apitype.APIToken
		f.want(http.StatusCreated, "POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "reader", Scopes: []string{apitype.ScopeTelemetryRead}}, &made)
		return made.Token
	}
	other := token()
	chart := "/v1/telemetry/range?" + span(url.Values{"step_s": {"10"}, "node": {id}, "metric": {"net.wg0.rx_bytes", "system.cpu.used_percent"}})
	for _, path := range []string{chart, "/odd/large"} {
		greedy := token()
		var slow []*sluggish
		held := 0
		for {
			s, n := f.sluggishly(greedy, path)
			if n == 0 {
				if s.Code != http.StatusTooManyRequests || s.Header().Get("Retry-After") == "" || !strings.Contains(s.Body.String(), apitype.ProblemRateLimited) {
					t.Fatalf("%s: after %d octets: %d %v %s", path, held, s.Code, s.Header(), s.Body)
				}
				break
			}
			slow = append(slow, s)
			if held += n; held > roomOfOne {
				t.Fatalf("%s: %d octets wait in %d answers", path, held, len(slow))
			}
		}
		if held < roomOfOne*3/4 {
			t.Errorf("%s: no more than %d octets may wait", path, held)
		}
		if s, n := f.sluggishly(other, path); n == 0 {
			t.Errorf("%s: another is refused: %d %s", path, s.Code, s.Body)
		} else {
			slow = append(slow, s)
		}
		if s, n := f.sluggishly(greedy, "/api/auth/me"); n == 0 {
			t.Errorf("a small question is refused: %d %s", s.Code, s.Body)
		} else {
			slow = append(slow, s)
		}
		for _, s := range slow {
			close(s.read)
			<-s.done
		}
		if s, n := f.sluggishly(greedy, path); n == 0 {
			t.Errorf("%s: once all is read: %d %s", path, s.Code, s.Body)
		} else {
			close(s.read)
			<-s.done
		}
		if f.rooms.all != 0 || len(f.rooms.of) != 0 {
			t.Errorf("%s: what is left is %+v", path, &f.rooms)
		}
	}
}

// TestTheRoomOfAll is not one caller's, and whoever waits for it gets it once it is there.
func TestTheRoomOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a API
		of := func(actor string) (context.Context, *caller) {
			c := &caller{actor: actor}
			return context.WithValue(t.Context(), callerKey{}, c), c
		}
		var callers []*caller
		for n := range 200 {
			ctx, c := of(fmt.Sprint("caller ", n%20))
			if a.makeRoom(ctx, 1<<20, 0) == nil {
				callers = append(callers, c)
			}
			if a.rooms.all > roomOfAll {
				t.Fatalf("%d octets", a.rooms.all)
			}
		}
		if len(callers) != roomOfAll>>20 {
			t.Errorf("%d answers of a MiB have room", len(callers))
		}
		late, c := of("late")
		began := time.Now()
		err := a.makeRoom(late, 1<<20, roomPatience)
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusTooManyRequests || p.RetryAfter() == 0 || time.Since(began) != roomPatience {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		gone, cancel := context.WithCancel(late)
		cancel()
		if err := a.makeRoom(gone, 1<<20, roomPatience); !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone: %v", err)
		}
		if err := a.makeRoom(late, roomless, 0); err != nil || c.room != 0 {
			t.Errorf("a small answer: %v", err)
		}
		waits := make(chan error)
		go func() { waits <- a.makeRoom(late, 3<<20, roomPatience) }()
		for _, c := range callers[:3] {
			synctest.Wait()
			select {
			case err := <-waits:
				t.Fatalf("too early: %v", err)
			default:
			}
			a.vacate(c)
		}
		if err := <-waits; err != nil || c.room != 3<<20 {
			t.Errorf("who waited has %d octets, %v", c.room, err)
		}
		// It is another answer than was thought.
		if err := a.makeRoom(late, 2<<20, 0); err != nil || c.room != 2<<20 {
			t.Errorf("a smaller one has %d octets, %v", c.room, err)
		}
		ctx, own := of("large")
		if err := a.makeRoom(ctx, 1<<20, 0); err != nil {
			t.Errorf("what it gave back: %v", err)
		}
		for _, c := range append(callers[3:], c, own) {
			a.vacate(c)
		}
		if a.rooms.all != 0 || len(a.rooms.of) != 0 {
			t.Errorf("what is left is %+v", &a.rooms)
		}
		if err := a.makeRoom(ctx, 3*roomOfOne, 0); err != nil || own.room != roomOfOne {
			t.Errorf("a very large one has %d octets, %v", own.room, err)
		}
	})
}

// TestTheRoomOfAPage is what it may take, and no more than a page does.
func TestTheRoomOfAPage(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration, q telemetry.Query) telemetry.Query {
		q.From, q.To = now.Add(-d), now
		return q
	}
	for _, tc := range []struct {
		name   string
		q      telemetry.Query
		limit  int
		points int
	}{
		{"a chart", ago(time.Hour, telemetry.Query{Nodes: []string{"a"}, Metrics: []string{"m"}, Points: 300}), 100, 300},
		{"of all nodes", ago(time.Hour, telemetry.Query{Metrics: []string{"m"}, Points: 300}), 100, 30_000},
		{"all of a node", ago(time.Hour, telemetry.Query{Nodes: []string{"a"}, Points: 300}), 1, 30_000},
		{"a pattern", ago(time.Hour, telemetry.Query{Nodes: []string{"a"}, Metrics: []string{"m.*"}, Points: 30}), 200, 6000},
		{"by a step", ago(time.Hour, telemetry.Query{Nodes: []string{"a", "b"}, Metrics: []string{"m", "n"}, Step: 10 * time.Second}), 100, 4 * 362},
		{"55 hours", ago(55*time.Hour, telemetry.Query{Nodes: []string{"a"}, Metrics: []string{"m", "n"}, Step: 10 * time.Second}), 100, 2 * 19_802},
		{"too much", ago(5000*time.Hour, telemetry.Query{Step: time.Millisecond}), 500, pagePoints},
	} {
		if got := roomOf(tc.q, tc.limit); got != tc.points*pointOctets {
			t.Errorf("%s: %d octets, want those of %d points", tc.name, got, tc.points)
		}
	}
}
