package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"halo.internal/model/apitype"
)

// TestRefusalsOfWebSocketsAreProblems, those of the library that knows what one is too.
func TestRefusalsOfWebSocketsAreProblems(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	good := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": base64.StdEncoding.EncodeToString(make([]byte, 16))}
	for _, path := range []string{"/v1/nodes/stream", "/v1/live"} {
		for _, tc := range []struct {
			name, header, value string
			want                int
		}{
			{"no upgrade", "Upgrade", "h2c", http.StatusUpgradeRequired},
			{"another version", "Sec-WebSocket-Version", "12", http.StatusBadRequest},
			{"a short key", "Sec-WebSocket-Key", "x", http.StatusBadRequest},
			{"a page of another site", "Origin", "https://evil.example", http.StatusForbidden},
			{"a page of nowhere", "Origin", "%zz", http.StatusForbidden},
		} {
			f.headers = map[string]string{}
			for k, v := range good {
				f.headers[k] = v
			}
			f.headers[tc.header] = tc.value
			resp, b := f.do("GET", path, nil)
			var p apitype.Problem
			if err := json.Unmarshal(b, &p); err != nil || resp.StatusCode != tc.want || p.Status != tc.want || p.Detail == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s, %s: got %d %s %q, %v; want the problem %d", path, tc.name, resp.StatusCode, resp.Header.Get("Content-Type"), b, err, tc.want)
			}
		}
	}
}
