package collect

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/prometheus/procfs"
)

// watched lists HALO's own processes: what they cost is telemetry like any
// other.
var watched = []string{"gateway-api", "halo-agent", "halo-field", "halo-mesh"}

// processes measures what HALO's processes cost: resident memory, and the processor's
// time since the last call, 100 % being one processor.
type processes struct {
	fs   procfs.FS
	now  func() time.Time
	last map[int]uint // ticks that processes had had by then
	at   time.Time

	// The kernel has some hundred threads of its own, all of which are processes in
	// /proc: to open each every ten seconds was most of what halo-agent cost.
	others map[int]bool // that are none of HALO's
	until  time.Time    // numbers are used again one day: when to look at all anew
}

// afresh is how long a number is taken for the same process's.
const afresh = time.Minute

func newProcesses(fs procfs.FS) *processes { return &processes{fs: fs, now: time.Now} }

func (*processes) Name() string { return "processes" }

func (p *processes) Collect(context.Context) ([]Reading, error) {
	all, err := p.fs.AllProcs()
	if err != nil {
		return nil, err
	}
	type cost struct {
		pages int
		ticks uint
	}
	now, was, since := p.now(), p.last, p.at
	p.last, p.at = make(map[int]uint), now
	seen := p.others
	if !now.Before(p.until) {
		seen, p.until = nil, now.Add(afresh)
	}
	p.others = make(map[int]bool)
	costs := make(map[string]cost)
	for _, proc := range all {
		if seen[proc.PID] {
			p.others[proc.PID] = true
			continue
		}
		st, err := proc.Stat()
		if err != nil { // it has ended since it was listed
			continue
		}
		if !slices.Contains(watched, st.Comm) {
			p.others[proc.PID] = true
			continue
		}
		had := st.UTime + st.STime
		p.last[st.PID] = had
		c := costs[st.Comm]
		c.pages += st.RSS
		c.ticks += had - min(had, was[st.PID])
		costs[st.Comm] = c
	}
	var out []Reading
	for _, name := range watched {
		c, ok := costs[name]
		if !ok {
			continue
		}
		out = append(out, integer("process."+name+".resident_kib", "KiB", 0, int64(c.pages)*int64(os.Getpagesize())/1024))
		if !since.IsZero() { // before, nothing tells over what time
			out = append(out, integer("process."+name+".cpu_percent", "%", 1, permille(float64(c.ticks)/ticks, now.Sub(since).Seconds())))
		}
	}
	return out, nil
}

const ticks = 100 // in a second: USER_HZ, as everywhere that Linux runs (proc_pid_stat(5))
