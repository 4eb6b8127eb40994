package collect

import (
	"context"
	"os"
	"slices"

	"github.com/prometheus/procfs"
)

// watched lists HALO's own processes: what they cost is telemetry like any
// other.
var watched = []string{"gateway-api", "halo-agent", "halo-field", "halo-mesh"}

// processes measures the resident memory of HALO's processes.
type processes struct{ fs procfs.FS }

func newProcesses(fs procfs.FS) processes { return processes{fs} }

func (processes) Name() string { return "processes" }

func (p processes) Collect(context.Context) ([]Reading, error) {
	all, err := p.fs.AllProcs()
	if err != nil {
		return nil, err
	}
	resident := make(map[string]int)
	for _, proc := range all {
		// One that ended since it was listed is no error.
		if st, err := proc.Stat(); err == nil && slices.Contains(watched, st.Comm) {
			resident[st.Comm] += st.RSS
		}
	}
	var out []Reading
	for _, name := range watched {
		if pages, ok := resident[name]; ok {
			out = append(out, integer("process."+name+".resident_kib", "KiB", 0, int64(pages)*int64(os.Getpagesize())/1024))
		}
	}
	return out, nil
}
