//go:build lab

package relay_test

import (
	"testing"

	"halo.internal/lab/testvm"
)

// The kernel of the images has IGMP snooping, which hosts' may lack.
func TestMain(m *testing.M) {
	asDevice()
	testvm.Main(m, testvm.Options{Modules: []string{"bridge", "veth"}})
}

const snooping = 1
