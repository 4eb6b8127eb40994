//go:build lab

package wireless_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"halo.internal/mesh/peering"
	"halo.internal/model"
)

// BenchmarkMeshMemory measures the memory of a gateway's halo-mesh whose radio has
// as many peers as it takes, each a halo-mesh of its own: once they are all there,
// and the most that it was on the way.
func BenchmarkMeshMemory(b *testing.B) {
	s := newSky(b)
	g, n := bundles(b, "BATMAN_IV")
	gw := s.board(model.RoleGateway, g)
	gw.plug(nil)
	const others, links = 11, peering.DefaultMaxPeers - 1 // one is kept free
	for i := range others {
		n.Name = fmt.Sprintf("mast-%d", i+1)
		s.board(model.RoleNode, n).plug(nil)
	}
	s.until("the gateway has peers enough and routes to all", func() error {
		st := gw.status()
		if len(st.Radios) != 1 || st.Radios[0].Linked() < links || st.Originators < others {
			return fmt.Errorf("radios %+v, %d originators", st.Radios, st.Originators)
		}
		return nil
	})
	b.ReportMetric(memory(b, gw.cmd.Process.Pid, "VmRSS:"), "MiB")
	b.ReportMetric(memory(b, gw.cmd.Process.Pid, "VmHWM:"), "MiB-most")
	b.ReportMetric(memory(b, gw.cmd.Process.Pid, "RssAnon:"), "MiB-anon")
	b.ReportMetric(memory(b, gw.cmd.Process.Pid, "RssFile:"), "MiB-file")
	b.ReportMetric(memory(b, gw.cmd.Process.Pid, "RssShmem:"), "MiB-shm")
	b.ReportMetric(float64(gw.status().Radios[0].Linked()), "peers")
	b.ReportMetric(0, "ns/op")
}

// memory returns a figure of proc_pid_status(5) in MiB.
func memory(b *testing.B, pid int, name string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatalf("no %s", name)
	return 0
}
