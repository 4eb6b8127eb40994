package ctl

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

var spanForm = regexp.MustCompile(`^(\d{1,6})(d|w)$`)

// span reads a duration: Go's, or days and weeks.
func span(s string) (time.Duration, error) {
	if m := spanForm.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, err
		}
		days := map[string]int{"d": 1, "w": 7}[m[2]] * n
		if days <= 100*366 {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("expected a duration such as 90s, 15m, 24h, 7d or 2w, got %q", s)
}

// moment reads an instant: how long ago it is, or a date.
func moment(now time.Time, s string) (time.Time, error) {
	if d, err := span(s); err == nil {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("expected how long ago, such as 24h or 7d, or a time such as 2026-11-20 or 2026-11-20T12:00:00Z (UTC), got %q", s)
}
