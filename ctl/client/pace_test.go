package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/model/apitype"
)

// handled is a gateway without a network between, so that time may be a bubble's.
type handled http.HandlerFunc

// RoundTrip implements http.RoundTripper.
func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	w := httptest.NewRecorder()
	h(w, r)
	return w.Result(), r.Context().Err()
}

func newHandled(h http.HandlerFunc, tokens Tokens) *Client {
	c := newClient(&url.URL{Scheme: "http", Host: "192.0.2.7:8080"}, nil, tokens)
	c.http.Transport = handled(h)
	return c
}

func holdBack(w http.ResponseWriter, typ, after string) {
	if after != "" {
		w.Header().Set("Retry-After", after)
	}
	answer(w, http.StatusTooManyRequests, apitype.Problem{Type: typ, Detail: "too many"})
}

// What the gateway did not begin since it holds its caller to a pace is sent again when it
// said; what people should hear of is not.
func TestThePaceIsKept(t *testing.T) {
	const held = apitype.ProblemRateLimited
	post := request{method: "POST", path: "/v1/x", body: map[string]string{"a": "b"}}
	once, file, get, anon, stream := post, post, request{method: "GET", path: "/v1/x"}, post, post
	once.once = true
	file.body, file.file = nil, []byte("a,b\n")
	anon.anon = true
	stream.body, stream.stream = nil, strings.NewReader("a,b\n")
	for name, tc := range map[string]struct {
		r          request
		typ, after string
		times      int // that it is held back; -1: always
		asked      int
		took       time.Duration
		want       bool
	}{
		"a change":                   {post, held, "1", 3, 4, 3 * time.Second, true},
		"with a key":                 {once, held, "1", 3, 4, 3 * time.Second, true},
		"a file":                     {file, held, "2", 2, 3, 4 * time.Second, true},
		"a question":                 {get, held, "5", 2, 3, 10 * time.Second, true},
		"for good":                   {get, held, "5", -1, 37, 3 * time.Minute, false},
		"for long":                   {post, held, "10", -1, 1, 0, false},
		"for ever":                   {post, held, "99999999999999999999", -1, 1, 0, false},
		"nobody knows for how long":  {post, held, "", -1, 1, 0, false},
		"without a login":            {anon, held, "1", -1, 1, 0, false},
		"what can be read once only": {stream, held, "1", -1, 1, 0, false},
		"something else":             {post, apitype.ProblemStore, "1", -1, 1, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bodies, keys []string
				c := newHandled(func(w http.ResponseWriter, r *http.Request) {
					b, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					bodies, keys = append(bodies, string(b)), append(keys, r.Header.Get("Idempotency-Key"))
					if tc.times < 0 || len(bodies) <= tc.times {
						holdBack(w, tc.typ, tc.after)
						return
					}
					answer(w, http.StatusOK, "done")
				}, bearer{"x"})
				var to bytes.Buffer
				start := time.Now()
				err := c.call(t.Context(), tc.r, &to)
				if (err == nil) != tc.want || tc.want && to.String() != "\"done\"\n" || len(bodies) != tc.asked || time.Since(start) != tc.took {
					t.Errorf("got %q, %v after %d requests and %s", &to, err, len(bodies), time.Since(start))
				}
				if p, ok := errors.AsType[*apitype.Problem](err); !tc.want && (!ok || p.Type != tc.typ || p.Detail != "too many") {
					t.Errorf("the gateway's answer is lost: %v", err)
				}
				for i := range bodies {
					if bodies[i] != bodies[0] || keys[i] != keys[0] || (bodies[i] == "") != (tc.r.method == "GET") {
						t.Errorf("sent %q with the keys %q", bodies, keys)
					}
				}
			})
		})
	}
}

func TestAPauseEndsWithItsCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newHandled(func(w http.ResponseWriter, _ *http.Request) {
			time.AfterFunc(300*time.Millisecond, cancel)
			holdBack(w, apitype.ProblemRateLimited, "5")
		}, bearer{"x"})
		start := time.Now()
		if err := c.Approve(ctx, "n-x"); !errors.Is(err, context.Canceled) || time.Since(start) > time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// throttled is a session that cannot be renewed now.
type throttled struct{ asked int }

func (s *throttled) Token(context.Context, string) (string, error) {
	s.asked++
	return "", apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "too many").After(time.Second)
}

func TestAThrottledLoginIsSaidAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &throttled{}
		c := newHandled(func(http.ResponseWriter, *http.Request) { t.Error("a request without a token") }, s)
		start := time.Now()
		err := c.Approve(t.Context(), "n-x")
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Type != apitype.ProblemRateLimited || s.asked != 1 || time.Since(start) != 0 {
			t.Errorf("got %v after %d tries and %s", err, s.asked, time.Since(start))
		}
	})
}

// An import of more parts than may come at once comes to its end, none of them twice.
func TestALongImportEnds(t *testing.T) {
	const parts = 120
	synctest.Test(t, func(t *testing.T) {
		pace, taken := rate.NewLimiter(5, 20), 0
		c := newHandled(func(w http.ResponseWriter, _ *http.Request) {
			if !pace.Allow() {
				holdBack(w, apitype.ProblemRateLimited, "1")
				return
			}
			taken++
			answer(w, http.StatusOK, apitype.Import{Readings: 1})
		}, bearer{"x"})
		start := time.Now()
		for n := range parts {
			if _, err := c.Import(t.Context(), "csv", []byte("a,b\n")); err != nil {
				t.Fatalf("part %d: %v", n, err)
			}
		}
		if taken != parts || time.Since(start) > 30*time.Second {
			t.Errorf("%d parts were taken in %s", taken, time.Since(start))
		}
	})
}
