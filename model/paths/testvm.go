package paths

import "path/filepath"

// What halo-image makes for the test machine and lab/testvm boots, below the
// folder of built images.
const (
	TestKernel   = "testvm/vmlinuz"
	TestRoot     = "testvm/root.cpio" // modules and firmware
	testPackages = "testvm/packages"
)

// TestPackage is the archive of a Debian package with what it depends on.
func TestPackage(name string) string { return filepath.Join(testPackages, name+".cpio") }
