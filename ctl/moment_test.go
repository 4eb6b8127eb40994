package ctl

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"90s": "2026-11-20T11:58:30Z", "24h": "2026-11-19T12:00:00Z", "7d": "2026-11-13T12:00:00Z", "2w": "2026-11-06T12:00:00Z",
		"2026-11-01": "2026-11-01T00:00:00Z", "2026-11-01 08:15": "2026-11-01T08:15:00Z", "2026-11-01 08:15:30": "2026-11-01T08:15:30Z", "2026-11-01T08:15:30+01:00": "2026-11-01T07:15:30Z",
		"": "", "0": "", "-1h": "", "1y": "", "999999w": "", "yesterday": "", "2026-13-01": "",
	} {
		got, err := moment(now, text)
		if want == "" {
			if err == nil {
				t.Errorf("%q: expected an error, got %v", text, got)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: got %v %v, want %s", text, got, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "17": 17, "512MiB": 512 << 20, "2 GiB": 2 << 30, "1TiB": 1 << 40, "": -1, "-1": -1, "5GB": -1, "99999999999TiB": -1, "1.5GiB": -1} {
		if got, err := readBytes(text); err == nil != (want >= 0) || err == nil && got != want {
			t.Errorf("%q: got %d %v, want %d", text, got, err, want)
		}
	}
}
