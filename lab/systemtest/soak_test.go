//go:build lab

package systemtest_test

import (
	"os"
	"testing"
	"time"
)

// soak returns a part that does to the network what the field does, at random,
// until the time of HALO_SOAK is over; nil where that is not set.
func soak(t *testing.T) func(*testing.T, *lab) {
	text := os.Getenv("HALO_SOAK")
	if text == "" {
		return nil
	}
	length, err := time.ParseDuration(text)
	if err != nil || length <= 0 {
		t.Fatalf("HALO_SOAK: expected a duration such as 1h, got %q", text)
	}
	return func(t *testing.T, l *lab) {
		random, _ := dice(t)
		all := l.net.Machines()[:len(l.nodes)+1]
		for end, i := time.Now().Add(length), 1; time.Now().Before(end) && !t.Failed(); i++ {
			m, node := all[random.IntN(len(all))], l.nodes[random.IntN(len(l.nodes))]
			switch random.IntN(4) {
			case 0:
				t.Logf("%d: power cut of %s", i, m.Name())
				l.powerCut(t, m, random, random.IntN(2) == 0)
			case 1:
				t.Logf("%d: reset of %s", i, m.Name())
				l.restart(t, m)
			case 2:
				t.Logf("%d: shutdown of %s", i, node.Name())
				l.shutdown(t, node)
			case 3:
				t.Logf("%d: partition of %s", i, node.Name())
				l.partition(t, node)
			}
		}
	}
}
