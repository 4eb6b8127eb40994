package gpio

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx       context.Context
		activeLow bool
		fails     error
		want      []string
		err       error
	}{
		"active low":     {t.Context(), true, nil, []string{"low", "release"}, nil},
		"active high":    {t.Context(), false, nil, []string{"high", "release"}, nil},
		"given up":       {ended, true, nil, []string{"low", "release"}, context.Canceled},
		"another's line": {t.Context(), true, errors.ErrUnsupported, nil, errors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			hold := time.Millisecond
			if tc.err != nil {
				hold = time.Hour
			}
			l := &Record{Err: tc.fails}
			if err := Pulse(tc.ctx, l, tc.activeLow, hold); !errors.Is(err, tc.err) || !slices.Equal(l.Done, tc.want) {
				t.Errorf("got %q, %v, want %q, %v", l.Done, err, tc.want, tc.err)
			}
		})
	}
}

func TestNoSuchLine(t *testing.T) {
	_, err := Open("no line of any board")
	if err == nil || !strings.Contains(err.Error(), "gpio") {
		t.Errorf("got %v", err)
	}
}
