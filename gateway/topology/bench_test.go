package topology

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// cpu is what the process has used of processors so far: on a busy machine the wall
// clock says little.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, since time.Duration) {
	b.ReportMetric(float64((cpu()-since).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// BenchmarkTopology250 draws the picture of 250 nodes and 1,500 links anew. What a
// report says by itself is prepared when it comes, as the Tracker does.
func BenchmarkTopology250(b *testing.B) {
	w := field(b, 250, 1500, rand.New(rand.NewPCG(1, 2)))
	reports := map[string]*prepared{}
	for _, h := range w.heard() {
		reports[h.Report.Node] = prepare(h.Report, noon)
	}
	members := w.members()
	links := 0
	b.ReportAllocs()
	since := cpu()
	for b.Loop() {
		links = len(draw(noon, members, reports, func(string) int { return 0 }).picture().Links)
	}
	reportCPU(b, since)
	b.ReportMetric(float64(links), "links")
}
