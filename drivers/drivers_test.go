package drivers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"halo.internal/drivers/nl80211"
)

// script is a radio whose calls fail by plan.
type script struct {
	fails map[string]int // how often, by call
	done  []string
}

var _ Radio = (*script)(nil)

func (s *script) call(name string) error {
	s.done = append(s.done, name)
	if s.fails[name] > 0 {
		s.fails[name]--
		return errors.New(name + " failed")
	}
	return nil
}

func (s *script) Name() string                      { return "wifi script" }
func (s *script) Prepare() error                    { return s.call("prepare") }
func (s *script) Load(context.Context) error        { return s.call("load") }
func (s *script) Unload(context.Context) error      { return s.call("unload") }
func (s *script) ForceUnload(context.Context) error { return s.call("force") }
func (s *script) Reset(context.Context) error       { return s.call("reset") }
func (s *script) Health(context.Context) error      { return s.call("health") }
func (s *script) Wiphys() ([]nl80211.Wiphy, error)  { return nil, nil }

func TestReload(t *testing.T) {
	for name, tc := range map[string]struct{ fails, done, err string }{
		"all well":          {"", "prepare unload load", ""},
		"a file is missing": {"prepare", "prepare", "wifi script is left as it is: prepare failed"},
		"in use":            {"unload", "prepare unload", "left as it is: unload failed"},
		"does not load":     {"load", "prepare unload load", "load failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{fails: map[string]int{tc.fails: 1}}
			check(t, Reload(t.Context(), s), tc.err)
			if got := strings.Join(s.done, " "); got != tc.done {
				t.Errorf("did %q, want %q", got, tc.done)
			}
		})
	}
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestRecover(t *testing.T) {
	for name, tc := range map[string]struct {
		fails map[string]int
		step  Step
		done  string
		err   string
	}{
		"the driver was it":      {nil, Reloaded, "prepare force load health", ""},
		"a file is missing":      {map[string]int{"prepare": 1}, "", "prepare", "stays as it is"},
		"the hardware was it":    {map[string]int{"health": 1}, WasReset, "prepare force load health force reset force load health", ""},
		"no radio came":          {map[string]int{"load": 1}, WasReset, "prepare force load force reset force load health", ""},
		"hangs in the kernel":    {map[string]int{"force": 2}, Reloaded, "prepare force force", "force failed"},
		"there is no reset line": {map[string]int{"health": 1, "reset": 1}, WasReset, "prepare force load health force reset", "reset failed"},
		"broken":                 {map[string]int{"health": 2}, WasReset, "prepare force load health force reset force load health", "not even after a reset: health failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{fails: tc.fails}
			step, err := Recover(t.Context(), s)
			check(t, err, tc.err)
			if got := strings.Join(s.done, " "); got != tc.done || step != tc.step {
				t.Errorf("did %q to %s, want %q to %s", got, step, tc.done, tc.step)
			}
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s := &script{fails: map[string]int{"health": 1}}
	if _, err := Recover(ended, s); err == nil || strings.Contains(fmt.Sprint(s.done), "reset") {
		t.Errorf("after the end: %v, did %q", err, s.done)
	}
}
