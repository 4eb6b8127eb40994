package support

import (
	"bytes"
	"cmp"
	"fmt"
	"os"

	"github.com/prometheus/procfs"

	"halo.internal/model/order"
)

// Processes lists all processes and threads of the kernel of the system whose /proc is
// at root, those first that have cost most: processor time in seconds since their
// start, resident memory in KiB, and how often its threads have waited for something
// since then: what wakes a process costs more than what it does then.
func Processes(root string) ([]byte, error) {
	fs, err := procfs.NewFS(root)
	if err != nil {
		return nil, err
	}
	all, err := fs.AllProcs()
	if err != nil {
		return nil, err
	}
	var list []procfs.ProcStat
	for _, p := range all {
		if st, err := p.Stat(); err == nil { // it may have ended meanwhile
			list = append(list, st)
		}
	}
	order.By(list, func(a, b procfs.ProcStat) int {
		return cmp.Or(cmp.Compare(b.CPUTime(), a.CPUTime()), cmp.Compare(a.PID, b.PID))
	})
	const ticks = 100. // USER_HZ, as everywhere that Linux runs: proc_pid_stat(5)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%7s %-16s %5s %10s %10s %12s %7s %9s\n", "PID", "NAME", "STATE", "USER_S", "SYSTEM_S", "RESIDENT_KIB", "THREADS", "WAITS")
	for _, st := range list {
		fmt.Fprintf(&b, "%7d %-16s %5s %10.2f %10.2f %12d %7d %9d\n",
			st.PID, st.Comm, st.State, float64(st.UTime)/ticks, float64(st.STime)/ticks, int64(st.RSS)*int64(os.Getpagesize())/1024, st.NumThreads, waits(fs, st.PID))
	}
	return b.Bytes(), nil
}

// waits is how often the threads of a process have given up the processor by themselves.
func waits(fs procfs.FS, pid int) (n uint64) {
	threads, err := fs.AllThreads(pid)
	if err != nil {
		return 0 // it has ended meanwhile
	}
	for _, t := range threads {
		if s, err := t.NewStatus(); err == nil {
			n += s.VoluntaryCtxtSwitches
		}
	}
	return n
}
