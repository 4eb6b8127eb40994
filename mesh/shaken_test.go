package mesh

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

func TestWhoHasShakenHandsLately(t *testing.T) {
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	status := []model.OverlayPeer{
		{Node: "lately", LastHandshake: at(-time.Minute)},
		{Node: "long ago", LastHandshake: at(-time.Hour)},
		{Node: "never"},
		{Node: "before the clock went back", LastHandshake: at(24 * time.Hour)},
		{Node: "with two keys", LastHandshake: at(24 * time.Hour)},
		{Node: "with two keys", LastHandshake: at(-time.Second)},
		{Node: "with another next key", LastHandshake: at(-time.Second)},
		{Node: "with another next key"},
	}
	want := []string{"lately", "with another next key", "with two keys"}
	if got := slices.Sorted(maps.Keys(shaken(status, now, handshakeStale))); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHealthOfTheOverlay(t *testing.T) {
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		up     bool
		err    error
		last   time.Time
		state  health.State
		detail string
	}{
		{"works", true, nil, now.Add(-time.Minute), health.OK, ""},
		{"not yet", false, nil, time.Time{}, health.Failed, "waits for membership and time"},
		{"fails", true, errors.New("no device"), now, health.Failed, "no device"},
		{"no answer yet", true, nil, time.Time{}, health.Failed, "no handshake with the gateway yet"},
		{"no answer any more", true, nil, now.Add(-time.Hour), health.Failed, "last handshake with the gateway was at 2026-11-28T08:00:00Z"},
		{"an answer before the clock went back", true, nil, now.AddDate(1, 0, 0), health.Failed, "last handshake with the gateway was at 2027-11-28T09:00:00Z, before the clock was set back"},
	} {
		if state, detail := overlayHealth(tc.up, tc.err, tc.last, now); state != tc.state || detail != tc.detail {
			t.Errorf("%s: got %s %q, want %s %q", tc.name, state, detail, tc.state, tc.detail)
		}
	}
}

// TestTheGatewaysHandshake is the one that is nearest to now: of two keys, one may have
// been used before the clock was set back.
func TestTheGatewaysHandshake(t *testing.T) {
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	ahead, lately, long := now.Add(time.Hour), now.Add(-time.Minute), now.Add(-2*time.Hour)
	for _, tc := range []struct {
		name string
		of   []*time.Time
		want time.Time
	}{
		{"none", nil, time.Time{}},
		{"never", []*time.Time{nil}, time.Time{}},
		{"one", []*time.Time{&long}, long},
		{"of the other key", []*time.Time{nil, &long}, long},
		{"the later one", []*time.Time{&long, &lately}, lately},
		{"one of before the clock went back", []*time.Time{&ahead}, ahead},
		{"that, and another", []*time.Time{&ahead, &lately}, lately},
	} {
		status := []model.OverlayPeer{{Node: "n-other", LastHandshake: &now}}
		for _, at := range tc.of {
			status = append(status, model.OverlayPeer{Node: "n-gateway", LastHandshake: at})
		}
		if got := handshakeWith(status, "n-gateway", now); !got.Equal(tc.want) {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}
