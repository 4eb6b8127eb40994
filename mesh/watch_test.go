package mesh

import (
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/mesh/announce"
)

func TestHealthSaysWhyTheGatewayIsMissing(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	up := &announce.Gateway{APIPort: 8443}
	for _, tc := range []struct {
		name    string
		heard   *announce.Gateway
		at      time.Time
		refused refusal
		state   health.State
		detail  string
	}{
		{"never heard", nil, time.Time{}, refusal{}, health.Failed, "no announcement of the gateway was heard yet"},
		{"heard", up, ago(time.Second), refusal{}, health.OK, ""},
		{"without an API", &announce.Gateway{}, ago(time.Second), refusal{}, health.Degraded, "gateway is heard, its API is not up yet"},
		{"silent", up, ago(5 * time.Minute), refusal{}, health.Failed, "gateway was last heard 5m0s ago"},
		{"refused from the start", nil, time.Time{}, refusal{7, 9, ago(time.Minute)}, health.Failed, "the gateway answers with epoch 7 and is refused, since 9 was heard"},
		{"replaced by an old card", up, ago(5 * time.Minute), refusal{7, 9, ago(time.Minute)}, health.Failed, "the gateway answers with epoch 7 and is refused, since 9 was heard"},
		{"refused once, then silent too", up, ago(10 * time.Minute), refusal{7, 9, ago(5 * time.Minute)}, health.Failed, "gateway was last heard 10m0s ago"},
	} {
		if state, detail := findGateway(tc.heard, tc.at, tc.refused, now); state != tc.state || detail != tc.detail {
			t.Errorf("%s: got %s %q, want %s %q", tc.name, state, detail, tc.state, tc.detail)
		}
	}
}
