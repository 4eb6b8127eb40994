package collect

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/procfs"
)

// maxInterfaces keeps a machine with hundreds of them within a schema.
const maxInterfaces = 32

// interfaces counts the traffic of every interface but the loopback.
type interfaces struct{ fs procfs.FS }

func newInterfaces(fs procfs.FS) interfaces { return interfaces{fs} }

func (interfaces) Name() string { return "interfaces" }

func (c interfaces) Collect(context.Context) ([]Reading, error) {
	lines, err := c.fs.NetDev()
	if err != nil {
		return nil, err
	}
	delete(lines, "lo")
	names := slices.Sorted(maps.Keys(lines))
	var out []Reading
	for _, name := range names[:min(len(names), maxInterfaces)] {
		l, p := lines[name], "net."+Label(name)+"."
		out = append(out,
			integer(p+"rx_bytes", "B", 0, int64(l.RxBytes)),
			integer(p+"tx_bytes", "B", 0, int64(l.TxBytes)),
			integer(p+"rx_packets", "", 0, int64(l.RxPackets)),
			integer(p+"tx_packets", "", 0, int64(l.TxPackets)),
			integer(p+"errors", "", 0, int64(l.RxErrors+l.TxErrors)),
			integer(p+"dropped", "", 0, int64(l.RxDropped+l.TxDropped)))
	}
	return out, nil
}
