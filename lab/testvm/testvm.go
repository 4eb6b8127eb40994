// Package testvm runs a package's own tests as the only program of an emulated
// machine with the images' kernel: for tests that need radios, kernel modules
// and namespaces, but no whole image. A test package hands its TestMain over:
//
//	func TestMain(m *testing.M) {
//		testvm.Main(m, testvm.Options{Modules: []string{"mac80211_hwsim radios=2"}})
//	}
//
// On the host that builds the package's tests for the machine, boots it, shows
// what they print while they print it, and ends with their exit status. Inside,
// the first process prepares the machine, runs the tests as its child and
// switches the machine off. Without -run, those tests run there that are built with
// the tag lab alone, since the others need no machine. Arguments and testdata are those of the host; what
// a test changes below testdata is brought back.
package testvm

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/machine"
)

// Options say what the machine needs to be.
type Options struct {
	// Modules are loaded before the tests, in order: a name and parameters, such as
	// "mac80211_hwsim radios=2". Those that the kernel itself asks for need no
	// mention, but may have their parameters here.
	Modules []string
	// Packages are Debian packages to have in the root, of those that the packing
	// manifest names as test_packages.
	Packages []string
	// MemoryMB is the machine's memory; 0 is 384.
	MemoryMB int
	// CPUs is how many processors the machine has; 0 is 1.
	CPUs int
	// Parts returns devices that the host plays for the machine; ctx ends with it. It is
	// called on the host alone.
	Parts func(ctx context.Context) ([]machine.Part, error)
	// Limit is how long the machine may run in all; 0 is half a minute more than the
	// tests' own -timeout, or half an hour where they have none.
	Limit time.Duration
}

// inside is the environment variable of the tests inside the machine.
const inside = "HALO_TESTVM"

// Inside tells whether this process runs in the test machine.
func Inside() bool { return os.Getenv(inside) != "" || os.Getpid() == 1 || isModprobe(os.Args) }

// Main runs the tests of m in the machine and ends the process with their exit
// status.
func Main(m *testing.M, o Options) {
	switch {
	case isModprobe(os.Args):
		modprobe(os.Args[3])
	case os.Getpid() == 1:
		first() // does not return
	case os.Getenv(inside) != "":
		go watchMemory()
		os.Exit(m.Run())
	case lists(os.Args[1:]):
		os.Exit(m.Run())
	}
	status, err := host(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test machine:", err)
		if status == 0 {
			status = 1
		}
	}
	os.Exit(status)
}

// isModprobe tells whether the kernel called this program to load a module:
// "<path> -q -- <name>".
func isModprobe(args []string) bool {
	return len(args) == 4 && args[1] == "-q" && args[2] == "--"
}

// lists tells whether the tests are only to be listed, which needs no machine.
func lists(args []string) bool {
	for _, a := range args {
		if strings.HasPrefix(a, "-test.list=") {
			return true
		}
	}
	return false
}

// job is what the host tells the first process, in a file of the root.
type job struct {
	Args    []string
	Env     []string
	Modules []string
}

// Places in the machine.
const (
	jobFile = "/job.json"
	workDir = "/work" // stands for the package's folder
	initial = "/init"
)

// Names of the machine's serial ports.
const (
	outputPort = "output" // what the tests print
	resultPort = "result" // one result, as JSON; when the host closes it, the machine is to end
)

// result is what the first process tells the host at the end.
type result struct {
	Status int
	Err    string            // why the tests could not be run
	Files  map[string][]byte // below testdata, as the tests changed them
}
