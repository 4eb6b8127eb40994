//go:build !lab

package announce

import (
	"os"
	"testing"

	"halo.internal/mesh/nstest"
)

// In the lab, all tests run in the test machine.
func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
