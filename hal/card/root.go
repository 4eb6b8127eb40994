package card

import (
	"errors"
	"fmt"
	"strings"
)

// Root is what root= names: a disk, by the GUID of its first partition, and a
// partition on it.
type Root struct {
	GUID      string // in lower case
	Partition int
}

// ParseRoot reads root=PARTUUID=<guid>/PARTNROFF=<n> from a kernel command
// line, the form that gokrazy writes: n counts from the disk's first
// partition, whose GUID it is.
func ParseRoot(cmdline string) (Root, error) {
	for _, f := range strings.Fields(cmdline) {
		spec, ok := strings.CutPrefix(f, "root=")
		if !ok {
			continue
		}
		id, ok := strings.CutPrefix(spec, "PARTUUID=")
		guid, off, ok2 := strings.Cut(id, "/PARTNROFF=")
		if !ok || !ok2 || len(guid) != 36 || len(off) != 1 || off[0] < '1' || off[0] > '2' {
			return Root{}, fmt.Errorf("root=: expected PARTUUID=<guid>/PARTNROFF=1 or 2, got %q", spec)
		}
		return Root{GUID: strings.ToLower(guid), Partition: int(off[0]-'0') + 1}, nil
	}
	return Root{}, errors.New("kernel command line: expected root=PARTUUID=…, got none")
}
