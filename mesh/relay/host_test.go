//go:build !lab

package relay_test

import (
	"os"
	"testing"

	"halo.internal/mesh/nstest"
)

func TestMain(m *testing.M) {
	asDevice()
	os.Exit(nstest.Main(m))
}

// snooping of IGMP is not in every host's kernel. Without it a relay takes it that
// clients listen to all groups; 1: with it.
const snooping = 0
