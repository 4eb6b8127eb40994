// Package confine takes from this process, for good, what it does not need: writing
// outside of its own folders, reading outside of some others, running programs, signals to
// other processes, and the superuser's capabilities. Whoever finds a way to have gateway-api
// do what he wants is then still within what it can do.
package confine

import (
	"fmt"
	"strings"
)

// Needs is what the process goes on needing.
type Needs struct {
	Write []string // folders in which it makes, writes, renames and removes files
	Read  []string // folders and files that it reads; what is not there is left out
	// Owner keeps the capabilities by which the superuser writes into folders of others: for a
	// laptop, where somebody may run it so.
	Owner bool
}

// Outcome says what has become of it.
type Outcome struct {
	ABI          int  // of landlock; 0: the kernel has none, and files are not confined
	Scoped       bool // signals and abstract sockets are confined too
	Capabilities bool // none is left but those that are needed
}

// String says it in a line.
func (o Outcome) String() string {
	var parts []string
	if o.ABI > 0 {
		parts = append(parts, fmt.Sprintf("files by landlock %d", o.ABI))
	}
	if o.Scoped {
		parts = append(parts, "signals")
	}
	if o.Capabilities {
		parts = append(parts, "capabilities")
	}
	if len(parts) == 0 {
		return "nothing is confined"
	}
	return "confined: " + strings.Join(parts, ", ")
}

// System are what any such program may read.
func System() []string {
	return []string{"/etc", "/proc", "/sys", "/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/tmp/resolv.conf"}
}
