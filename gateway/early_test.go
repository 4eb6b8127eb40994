package gateway

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"halo.internal/health"
	"halo.internal/model/apitype"
)

// Before the API is ready, clients get problems as from the API.
func TestRefusalsAtTheStartAreProblems(t *testing.T) {
	h := early(health.New("gateway-api"))
	for _, r := range []*http.Request{httptest.NewRequest("GET", "/v1/nodes", nil), httptest.NewRequest("POST", "/api/auth/login", nil), httptest.NewRequest("POST", "/health", nil)} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var p apitype.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusServiceUnavailable || p.Status != w.Code || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Retry-After") != "2" {
			t.Errorf("%s %s: got %d %v %s, %v", r.Method, r.URL, w.Code, w.Header(), w.Body, err)
		}
	}
}
