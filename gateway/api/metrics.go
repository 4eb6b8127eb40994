package api

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/gateway/telemetry/format"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/version"
)

// latestAge is how old a value may be to be told as one of now: nodes send every minute.
const latestAge = 10 * time.Minute

// metricsText is the answer of GET /metrics.
func (a *API) metricsText(ctx context.Context) ([]byte, error) {
	var text bytes.Buffer
	var nodes []apitype.Node
	for cursor := ""; ; {
		list, err := a.Registry.Nodes(ctx, cursor, 500)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, list.Items...)
		if cursor = list.Next; cursor == "" {
			break
		}
	}
	nodes = slices.DeleteFunc(nodes, func(n apitype.Node) bool { return n.Revoked })
	one := func(name, kind, help string, value float64) {
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", name, help, name, kind, name, value)
	}
	fmt.Fprintf(&text, "# HELP gateway_info The gateway's release.\n# TYPE gateway_info gauge\ngateway_info{version=%s,node=%s,network=%s} 1\n",
		format.Quote(version.Get().Version), format.Quote(a.Registry.Gateway()), format.Quote(a.networkName()))
	one("gateway_start_time_seconds", "gauge", "When it started.", float64(a.started.UnixMilli())/1000)
	one("gateway_telemetry_bytes", "gauge", "What telemetry takes of the file system.", float64(a.Telemetry.Bytes()))
	one("gateway_telemetry_budget_bytes", "gauge", "What it may take.", float64(a.Telemetry.Limit()))
	one("gateway_telemetry_commits_total", "counter", "Transactions of telemetry.", float64(a.Telemetry.Commits()))
	one("gateway_telemetry_tended_total", "counter", "How often it was compacted, rolled up and thinned.", float64(a.Telemetry.Tended()))
	one("gateway_telemetry_thinned_total", "counter", "How often a week was thinned or removed for space.", float64(a.Telemetry.Thinned()))
	one("gateway_config_commits_total", "counter", "Transactions of the control plane.", float64(a.Config.Config.Commits()))
	one("go_goroutines", "gauge", "Goroutines of gateway-api.", float64(runtime.NumGoroutine()))
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) == nil {
		one("process_cpu_seconds_total", "counter", "Processor time of gateway-api.", time.Duration(used.Utime.Nano()+used.Stime.Nano()).Seconds())
	}
	if resident, ok := residentBytes(); ok {
		one("process_resident_memory_bytes", "gauge", "Resident memory of gateway-api.", resident)
	}
	text.WriteString("# HELP gateway_node_up Whether the node's stream is open.\n# TYPE gateway_node_up gauge\n")
	names := map[string]string{}
	for _, n := range nodes {
		names[n.ID] = n.Name
		up := 0
		if n.Online {
			up = 1
		}
		fmt.Fprintf(&text, "gateway_node_up{node=%s,name=%s} %d\n", format.Quote(n.ID), format.Quote(n.Name), up)
	}
	var latest []apitype.Reading
	for _, n := range nodes {
		latest = append(latest, a.Telemetry.Latest().Node(n.ID, "")...)
	}
	order.By(latest, func(x, y apitype.Reading) int {
		return cmp.Or(strings.Compare(x.Metric, y.Metric), strings.Compare(x.Node, y.Node))
	})
	err := format.Latest(&text, latest, names, a.Clock.Now(), latestAge)
	return text.Bytes(), err
}

// residentBytes is the process's resident memory (proc_pid_statm(5)).
func residentBytes() (float64, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(text))
	if err != nil || len(f) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseUint(f[1], 10, 64)
	return float64(pages) * float64(os.Getpagesize()), err == nil
}
