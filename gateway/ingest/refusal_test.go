package ingest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"halo.internal/model/apitype"
)

// Whoever gets no stream is told why by a problem.
func TestRefusalsAreProblems(t *testing.T) {
	f := newFixture(t)
	refused := func(remote string, want int, retry string) {
		t.Helper()
		r, w := httptest.NewRequest("GET", "/v1/nodes/stream", nil), httptest.NewRecorder()
		r.RemoteAddr = remote
		f.ServeHTTP(w, r)
		var p apitype.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != want || p.Status != want || p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Retry-After") != retry {
			t.Errorf("from %q: got %d %v %s, %v; want the problem %d", remote, w.Code, w.Header(), w.Body, err, want)
		}
	}
	refused("@", http.StatusBadRequest, "")
	refused("192.0.2.7:4711", http.StatusForbidden, "")
	for range maxUnprovenEach {
		leave, ok := f.unproven.enter(netip.MustParseAddr("127.0.0.1"))
		if !ok {
			t.Fatal("no place")
		}
		defer leave()
	}
	refused("127.0.0.1:4711", http.StatusServiceUnavailable, "10")
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	refused("127.0.0.1:4711", http.StatusServiceUnavailable, "5")
}
