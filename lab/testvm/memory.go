package testvm

import (
	"fmt"
	"os"
	"runtime/metrics"
	"runtime/pprof"
	"time"
)

// mostMemory of the tests' Go runtime, in octets: half of a machine, and far beyond
// what any test needs.
const mostMemory = defaultMemoryMB / 2 << 20

// watchMemory ends the tests before the kernel does, which would not say what the
// memory was for.
func watchMemory() {
	taken := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	for range time.Tick(200 * time.Millisecond) {
		metrics.Read(taken)
		if n := taken[0].Value.Uint64() - taken[1].Value.Uint64(); n > mostMemory {
			fmt.Fprintf(os.Stderr, "test machine: the tests take %d MiB of memory, expected at most %d: by whom it was allocated, and what all do\n", n>>20, mostMemory>>20)
			_ = pprof.Lookup("heap").WriteTo(os.Stderr, 1)
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			os.Exit(2)
		}
	}
}
