package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// bearer is a session whose token never changes.
type bearer struct{ token string }

func (b bearer) Token(context.Context, string) (string, error) { return b.token, nil }

// renewing is a session that gives "old" first and "new" once that was refused.
type renewing struct{ renewals atomic.Int32 }

func (r *renewing) Token(_ context.Context, stale string) (string, error) {
	if stale == "" && r.renewals.Load() == 0 {
		return "old", nil
	}
	r.renewals.Add(1)
	return "new", nil
}

func plain(t *testing.T, h http.HandlerFunc, tokens Tokens) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(u, nil, tokens)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAnEndedTokenIsRenewedOnce(t *testing.T) {
	var asked atomic.Int32
	refuse := func(string) bool { return true }
	c := func(good func(string) bool) (*Client, *renewing) {
		s := &renewing{}
		return plain(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if !good(r.Header.Get("Authorization")) {
				answer(w, http.StatusUnauthorized, apitype.Problem{Title: "Unauthorized", Detail: "the token ended"})
				return
			}
			answer(w, http.StatusOK, apitype.NodeList{Items: []apitype.Node{{Name: "gw"}}})
		}, s), s
	}
	api, s := c(func(h string) bool { return h == "Bearer new" })
	if nodes, err := api.Nodes(t.Context()); err != nil || len(nodes) != 1 || s.renewals.Load() != 1 {
		t.Errorf("got %v, %v after %d renewals", nodes, err, s.renewals.Load())
	}
	asked.Store(0)
	api, _ = c(func(h string) bool { return !refuse(h) })
	_, err := api.Nodes(t.Context())
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusUnauthorized || asked.Load() != 2 {
		t.Errorf("always refused: got %v after %d requests, want 401 after 2", err, asked.Load())
	}
}

func TestTokensStayWithTheGateway(t *testing.T) {
	var leaked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked.Store(true) }))
	t.Cleanup(elsewhere.Close)
	c := plain(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}, bearer{"secret"})
	if _, err := c.Nodes(t.Context()); err == nil {
		t.Error("a redirect was taken for an answer")
	}
	if leaked.Load() {
		t.Error("a redirect was followed")
	}
}

func TestListsEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		next func(page int) string
		want int // entries; 0 for an error
	}{
		{"three pages", func(p int) string { return []string{"a", "b", ""}[p] }, 3},
		{"the same cursor again", func(int) string { return "a" }, 0},
		{"no end", strconv.Itoa, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := -1
			list, err := all(func(string) ([]int, string, error) { p++; return []int{p}, tc.next(p), nil })
			if len(list) != tc.want || (err == nil) != (tc.want > 0) {
				t.Errorf("got %d entries, %v; want %d", len(list), err, tc.want)
			}
			if p > maxPages {
				t.Errorf("asked for %d pages", p)
			}
		})
	}
}

func TestAnswersAreBounded(t *testing.T) {
	c := plain(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := strings.Repeat(" ", 1<<20)
		for range maxAnswer>>20 + 1 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}, bearer{"x"})
	if _, err := c.Node(t.Context(), "n01"); err == nil || !strings.Contains(err.Error(), "expected at most") {
		t.Errorf("got %v", err)
	}
}

func TestAnswersThatAreNotTheGateways(t *testing.T) {
	for _, tc := range []struct {
		name, kind, body string
		status           int
		want             string
	}{
		{"problem", "application/problem+json; charset=utf-8", `{"type":"name-taken","title":"Conflict","status":409,"detail":"n01 is taken"}`, 409, "n01 is taken"},
		{"a web server's page", "text/html", "<h1>No</h1>", 404, "not from a HALO gateway: 404"},
		{"broken problem", "application/problem+json", `{"type":`, 500, "not from a HALO gateway: 500"},
		{"no JSON", "application/json", "hello", 200, "expected the gateway's JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := plain(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.kind)
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body) // a failed write fails the client
			}, bearer{"x"})
			_, err := c.Node(t.Context(), "n01")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want mention of %q", err, tc.want)
			}
			if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Status != tc.status {
				t.Errorf("got status %d, want %d", p.Status, tc.status)
			}
		})
	}
}

func TestASickGatewayReportsToo(t *testing.T) {
	g := health.New("gateway-api")
	g.Declare("halo-mesh")
	c := plain(t, g.ServeHTTP, nil)
	r, err := c.Health(t.Context())
	if err != nil || r.State != health.Starting || r.Missing != "halo-mesh" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestAgesFollowTheGatewaysClock(t *testing.T) {
	there := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	c := plain(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", there.Format(http.TimeFormat))
		answer(w, http.StatusOK, health.Report{})
	}, nil)
	if _, err := c.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := c.Now().Sub(there); d < 0 || d > time.Minute {
		t.Errorf("the gateway's time is %s, want %s", c.Now(), there)
	}
}

func TestNobodyThere(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	c, err := New(u, nil, bearer{"secret"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Nodes(t.Context())
	if _, ok := errors.AsType[*UnreachableError](err); !ok || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want UnreachableError without the token", err)
	}
}

func TestParseGateway(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"192.0.2.7", "https://192.0.2.7:8443"},
		{"gateway.halo", "https://gateway.halo:8443"},
		{"https://192.0.2.7:9443/", "https://192.0.2.7:9443"},
		{"fd12::1", "https://[fd12::1]:8443"},
		{"https://[fd12::1]", "https://[fd12::1]:8443"},
		{"http://127.0.0.1", "http://127.0.0.1:8080"},
		{"http://10.42.0.1:8080", "http://10.42.0.1:8080"},
		{"http://192.0.2.7", ""},
		{"http://localhost.example", ""},
		{"ftp://192.0.2.7", ""},
		{"https://user:secret@192.0.2.7", ""},
		{"https://192.0.2.7/v1", ""},
		{"https://", ""},
		{"", ""},
	} {
		u, err := ParseGateway(tc.in)
		switch {
		case tc.want == "" && err == nil:
			t.Errorf("%q was taken as %s", tc.in, u)
		case tc.want != "" && (err != nil || u.String() != tc.want):
			t.Errorf("%q: got %v, %v, want %s", tc.in, u, err, tc.want)
		}
	}
}

func FuzzParseGateway(f *testing.F) {
	f.Add("http://127.0.0.1:8080")
	f.Add("https://[fe80::1%25eth0]:8443")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseGateway(s)
		if err != nil {
			return
		}
		a, err := netip.ParseAddr(u.Hostname())
		safe := u.Hostname() == "localhost" || err == nil && (a.IsLoopback() || paths.OverlayNet.Contains(a))
		if u.Scheme == "http" && !safe {
			t.Fatalf("%q would be spoken to in the clear", s)
		}
		if again, err := ParseGateway(u.String()); err != nil || *again != *u {
			t.Fatalf("%q gives %s, which gives %v, %v", s, u, again, err)
		}
	})
}
