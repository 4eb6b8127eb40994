package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestEveryAnswerIsSecured(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, r := range []struct{ method, path string }{
		{"GET", "/health"}, {"GET", "/docs"}, {"GET", "/v1/nodes"}, {"GET", "/no/such/route"}, {"PUT", "/health"}, {"POST", "/v1/restore"}, {"GET", "/v1/nodes/stream"},
	} {
		resp, _ := f.do(r.method, r.path, nil)
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Content-Security-Policy": "frame-ancestors 'none'", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := resp.Header.Get(header); !strings.Contains(got, want) {
				t.Errorf("%s %s: %s is %q, want %q", r.method, r.path, header, got, want)
			}
		}
		for _, no := range []string{"Strict-Transport-Security", "Access-Control-Allow-Origin", "Server"} {
			if got := resp.Header.Get(no); got != "" {
				t.Errorf("%s %s: %s is %q", r.method, r.path, no, got)
			}
		}
	}
}

// A page from elsewhere, whose name leads to the loopback, is no part of this gateway.
func TestANameOfSomebodyElseIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for host, want := range map[string]int{
		"127.0.0.1:8080": 200, "10.42.0.1:8080": 200, "[::1]:8080": 200, "localhost": 200, "LOCALHOST:8080": 200, "gateway.halo:8080": 200, "gateway.halo.": 200,
		"evil.example": 421, "evil.example:8080": 421, "halo.evil.example": 421, "xhalo": 421, "127.0.0.1.evil.example": 421,
	} {
		for _, secure := range []bool{false, true} {
			r := httptest.NewRequest("GET", "/health", nil)
			r.Host = host
			if secure {
				r.TLS = &tls.ConnectionState{}
			}
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			status := w.Code
			if status == http.StatusServiceUnavailable {
				status = 200 // nothing is known of its health yet
			}
			if secure && status != 200 || !secure && status != want {
				t.Errorf("%s, TLS %v: got %d, want %d", host, secure, w.Code, want)
			}
		}
	}
	r := httptest.NewRequest("GET", "/health", nil)
	r.Host = "anything"
	r = r.WithContext(contextWithLocal(r, &net.UnixAddr{Name: "/run/halo/gateway.sock"}))
	w := httptest.NewRecorder()
	if f.ServeHTTP(w, r); w.Code == http.StatusMisdirectedRequest {
		t.Error("a process of the device is refused")
	}
}

func contextWithLocal(r *http.Request, at net.Addr) context.Context {
	return context.WithValue(r.Context(), http.LocalAddrContextKey, at)
}
