package boot

import (
	"testing"
	"time"
)

func TestOption(t *testing.T) {
	const cmdline = "ro halo.slot=a halo.slot=b xhalo.slot=c halo.empty=\n"
	for key, want := range map[string]string{"halo.slot": "b", "halo.empty": "", "halo.other": "none"} {
		got, ok := option(cmdline, key)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestTrial(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"":                         10 * time.Minute,
		"halo.trial_s=90":          90 * time.Second,
		"halo.trial_s=0":           10 * time.Minute,
		"halo.trial_s=-5":          10 * time.Minute,
		"halo.trial_s=99999999999": 10 * time.Minute,
		"halo.trial_s=86401":       10 * time.Minute,
	} {
		if got := trial(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestIsModprobe(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want bool
	}{
		{[]string{"/proc/87/exe", "-q", "--", "rtnl-link-batadv"}, true},
		{[]string{"/init"}, false},
		{[]string{"halo-guard"}, false},
		{[]string{"/init", "-q", "--"}, false},
	} {
		if got := IsModprobe(tc.args); got != tc.want {
			t.Errorf("%q: got %v", tc.args, got)
		}
	}
}
