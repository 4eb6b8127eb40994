package mesh

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/local"
)

// TestUsesOfAConsoleAreEvents: as at the door, looks are none.
func TestUsesOfAConsoleAreEvents(t *testing.T) {
	m := bareCore(t, identity.New().Public(), identity.New())
	h := m.bookConsole(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, q := range []struct{ method, path, console string }{
		{"GET", local.RouteStatus, "ttyAMA0"},
		{"POST", local.RouteDoctor, ""}, // gateway-api, or halo-agent
		{"POST", local.RouteDoctor, "ttyAMA0"},
		{"GET", local.RouteSupport, "ttyAMA0"},
		{"PUT", local.RouteOverlayKey, strings.Repeat("x", 999)},
	} {
		r := httptest.NewRequest(q.method, q.path, nil)
		r.Header.Set(local.HeaderConsole, q.console)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	var got []string
	for _, e := range m.events.After(0, 0) {
		if e.Kind == eventConsoleUsed {
			got = append(got, e.Fields["where"]+" "+e.Fields["did"])
		}
	}
	want := []string{"ttyAMA0 POST " + local.RouteDoctor, "ttyAMA0 GET " + local.RouteSupport, strings.Repeat("x", 64) + " PUT " + local.RouteOverlayKey}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events %q, want %q", got, want)
	}
}
