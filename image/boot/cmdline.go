package boot

import (
	"strconv"
	"strings"
	"time"
)

// option returns the value of the last key=value of that key on a kernel
// command line, which wins as it does in the kernel.
func option(cmdline, key string) (value string, ok bool) {
	for _, f := range strings.Fields(cmdline) {
		if v, found := strings.CutPrefix(f, key+"="); found {
			value, ok = v, true
		}
	}
	return value, ok
}

// Bounds of halo.trial_s=, within which a slot on trial must be healthy.
const (
	defaultTrial = 10 * time.Minute
	maxTrial     = 24 * time.Hour
)

// trial reads halo.trial_s= from the command line; what makes no sense leaves
// the default, since a start must not end here.
func trial(cmdline string) time.Duration {
	v, _ := option(cmdline, "halo.trial_s")
	s, err := strconv.ParseUint(v, 10, 32)
	if d := time.Duration(s) * time.Second; err == nil && d > 0 && d <= maxTrial {
		return d
	}
	return defaultTrial
}
