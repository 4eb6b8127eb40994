package health

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestFirstBrokenDependencyExplainsTheRest(t *testing.T) {
	for _, tc := range []struct {
		name    string
		set     map[string]State
		state   State
		missing string
		code    int
	}{
		{"nothing known", nil, Starting, "perm", http.StatusServiceUnavailable},
		{"all well", map[string]State{"perm": OK, "mesh": OK, "gateway": OK}, OK, "", http.StatusOK},
		{"root cause, not the symptom", map[string]State{"perm": OK, "mesh": Failed, "gateway": Failed}, Failed, "mesh", http.StatusServiceUnavailable},
		{"what works with less is not why it fails", map[string]State{"perm": Degraded, "mesh": OK, "gateway": Failed}, Failed, "gateway", http.StatusServiceUnavailable},
		{"what works with less does not hide what rests on it", map[string]State{"perm": OK, "mesh": Degraded, "gateway": Failed}, Failed, "gateway", http.StatusServiceUnavailable},
		{"not known yet", map[string]State{"perm": Degraded, "mesh": Starting, "gateway": Failed}, Failed, "mesh", http.StatusServiceUnavailable},
		{"the first of two that work with less", map[string]State{"perm": OK, "mesh": Degraded, "gateway": Degraded}, Degraded, "mesh", http.StatusOK},
		{"less than all", map[string]State{"perm": Degraded, "mesh": OK, "gateway": OK}, Degraded, "perm", http.StatusOK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := New("test")
			g.Declare("perm")
			g.Declare("mesh")
			g.Declare("gateway", "mesh")
			for n, s := range tc.set {
				g.Set(n, s, "because")
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, nil)
			var r Report
			if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			if r.State != tc.state || r.Missing != tc.missing || w.Code != tc.code {
				t.Errorf("got state %q missing %q code %d, want %q %q %d", r.State, r.Missing, w.Code, tc.state, tc.missing, tc.code)
			}
		})
	}
}

func TestWatchersHearChangesOnly(t *testing.T) {
	g := New("test")
	g.Declare("perm")
	var heard []State
	g.Watch(func(c Check) { heard = append(heard, c.State) })
	g.Set("perm", OK, "")
	g.Set("perm", OK, "still")
	g.Set("perm", Failed, "gone")
	if len(heard) != 2 || heard[0] != OK || heard[1] != Failed {
		t.Errorf("heard %v, want [ok failed]", heard)
	}
}
