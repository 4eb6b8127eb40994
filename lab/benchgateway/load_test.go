package benchgateway_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/load"
)

// BenchmarkLoad250 is halo-lab load: 250 nodes and the gateway's own agent send as they do, a
// batch of six readings of twelve metrics every minute and reports of whom they hear, for two
// minutes; ten of them have brought home a day before. It reports what gateway-api takes
// meanwhile, of its core and of memory, how soon it acknowledges and tells what came, and how
// long its answers take by the caller's clock, over TLS, and how much of the server's
// processor time each. It fails unless all that was acknowledged is found.
func BenchmarkLoad250(b *testing.B) {
	for b.Loop() {
		f, err := load.Run(b.Context(), load.Options{Program: os.Getenv(gatewayProgram), Dir: b.TempDir(), Nodes: 250, Backlog: 24 * time.Hour, BacklogNodes: 10, Asks: 300, Pin: true,
			Say: func(text string) { b.Log(text) }})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(f.CPUPercent, "%-of-core")
		b.ReportMetric(float64(f.Resident)/(1<<20), "MB")
		b.ReportMetric(float64(f.Most)/(1<<20), "MB-most")
		b.ReportMetric(float64(f.Written)/(1<<10)/f.Seconds, "KB/s-written")
		b.ReportMetric(f.Ack.P99MS, "ms-p99-acknowledged")
		b.ReportMetric(f.Told.P99MS, "ms-p99-live")
		b.ReportMetric(f.Urgent.P99MS, "ms-p99-urgent-live")
		b.ReportMetric(float64(f.Errors), "errors")
		b.ReportMetric(float64(f.Drawn), "links")
		for _, a := range f.Asked {
			what := strings.ReplaceAll(a.What, " ", "-")
			b.ReportMetric(a.P99MS, fmt.Sprint("ms-p99-", what))
			b.ReportMetric(a.CPUMS, fmt.Sprint("cpu-ms-", what))
		}
	}
	b.ReportMetric(0, "ns/op")
}
