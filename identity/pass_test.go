package identity

import (
	"strings"
	"testing"
	"time"
)

func TestPass(t *testing.T) {
	k, other := New(), New()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	pass := k.Pass("n-a", "GET /v1/cameras", now)
	p := k.Public()
	if err := p.CheckPass(pass, "n-a", "GET /v1/cameras", now.Add(9*time.Minute)); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another node":    p.CheckPass(pass, "n-b", "GET /v1/cameras", now),
		"another request": p.CheckPass(pass, "n-a", "POST /v1/cameras", now),
		"old":             p.CheckPass(pass, "n-a", "GET /v1/cameras", now.Add(11*time.Minute)),
		"of the future":   p.CheckPass(pass, "n-a", "GET /v1/cameras", now.Add(-11*time.Minute)),
		"another key":     other.Public().CheckPass(pass, "n-a", "GET /v1/cameras", now),
		"none":            p.CheckPass("", "n-a", "GET /v1/cameras", now),
		"cut off":         p.CheckPass(pass[:30], "n-a", "GET /v1/cameras", now),
		"of no signature": p.CheckPass(PassScheme+" AAAA", "n-a", "GET /v1/cameras", now),
		"a login":         p.CheckPass("Bearer abc", "n-a", "GET /v1/cameras", now),
		"long":            p.CheckPass(PassScheme+" "+strings.Repeat("A", 1000), "n-a", "GET /v1/cameras", now),
		"shifted":         p.CheckPass(pass, "n-a\x00GET /v1", "/cameras", now),
	} {
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func FuzzCheckPass(f *testing.F) {
	k := New()
	now := time.Unix(1_800_000_000, 0)
	good := k.Pass("n-a", "GET /", now)
	f.Add(good, int64(0))
	f.Add(PassScheme+" ", int64(1))
	f.Fuzz(func(t *testing.T, header string, _ int64) {
		if err := k.Public().CheckPass(header, "n-a", "GET /", now); err == nil && !strings.HasSuffix(header, good[len(PassScheme):]) {
			t.Errorf("%q was taken", header)
		}
	})
}
