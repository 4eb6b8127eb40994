package ctl_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/model/apitype"
)

// telemetryRoutes are the stand-in's answers about ranges, files and settings.
func telemetryRoutes() map[string]any {
	point := func(d time.Duration, v float64) apitype.Point {
		return apitype.Point{Time: ago(d), Count: 6, Min: v - 1, Max: 97.25, Mean: v, First: v, Last: v, Value: v}
	}
	const cpu = "system.cpu.used_percent"
	now := apitype.Settings{Telemetry: apitype.TelemetrySettings{KeepRawS: 90 * 86400, KeepMinuteS: 365 * 86400, KeepQuarterS: 730 * 86400, KeepHourS: 1825 * 86400, BudgetBytes: 1 << 30}}
	return map[string]any{
		"GET /v1/telemetry/range": func(r *http.Request) any {
			q := r.URL.Query()
			list := apitype.SeriesList{StepS: 60, Items: []apitype.Series{{Node: nodeID, Metric: cpu, Unit: "%", Points: []apitype.Point{point(2*time.Minute, 12.34567), point(time.Minute, 30)}}}}
			switch {
			case q.Get("node") == "n99":
				return apitype.Problem{Title: "Not Found", Status: http.StatusNotFound, Detail: "no such node"}
			case q.Get("across") == "sum" && q.Get("step_s") == "300" && q.Get("func") == "rate" && q.Get("from") == ago(24*time.Hour).Format(time.RFC3339) && fmt.Sprint(q["metric"]) == "[net.* gps.*]":
				list.Items[0].Node = ""
				return list
			case q.Get("from") == ago(time.Hour).Format(time.RFC3339) && q.Get("points") == "60":
				return list
			}
			return apitype.Problem{Title: "Unprocessable Entity", Status: http.StatusUnprocessableEntity, Detail: r.URL.RawQuery}
		},
		"GET /v1/nodes/n01/telemetry/marks": apitype.MarkList{Node: nodeID, Items: []apitype.Mark{
			{Time: ago(time.Hour), Kind: "boot", Boot: 12},
			{Time: ago(40 * time.Minute), Until: agoPtr(30 * time.Minute), Kind: "gap", Boot: 12, Detail: "2 batches"},
			{Time: ago(20 * time.Minute), Kind: "clock", Boot: 12, Detail: "+2338000 ms, none to gateway"}}},
		"GET /v1/telemetry/metrics": apitype.MetricList{Items: []apitype.Metric{{Metric: cpu, Unit: "%"}, {Metric: "system.load.avg_1m"}}},
		"GET /v1/telemetry/export": func(r *http.Request) any {
			q := r.URL.Query()
			return pcapFile(fmt.Sprintf("%s of %s\n", q.Get("format"), q["node"]))
		},
		"POST /v1/telemetry/import": func(r *http.Request) any {
			body, err := io.ReadAll(r.Body)
			if err != nil || bytes.Contains(body, []byte("bad")) {
				return apitype.Problem{Title: "Unprocessable Entity", Status: http.StatusUnprocessableEntity, Detail: "line 2: expected a number"}
			}
			n := bytes.Count(body, []byte("\n")) - 1
			return apitype.Import{Readings: n + 5, Stored: n, Duplicate: 3, Unknown: 2, Nodes: []string{"ghost"}}
		},
		"GET /v1/settings":   now,
		"PATCH /v1/settings": now,
	}
}

// A large file goes in parts, of CSV each with its first line, and what failed says where.
func TestImportInParts(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	var parts []string
	g.set("POST /v1/telemetry/import", func(r *http.Request) any {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Query().Get("format") != "csv" {
			t.Error(err, r.URL.RawQuery)
		}
		parts = append(parts, string(body))
		if strings.Contains(parts[len(parts)-1], "bad") {
			return apitype.Problem{Title: "Unprocessable Entity", Status: http.StatusUnprocessableEntity, Detail: "line 2: expected a number"}
		}
		return apitype.Import{Readings: strings.Count(parts[len(parts)-1], "\n") - 1, Stored: 1}
	})
	const head = "time,node,metric,value\n"
	var file strings.Builder
	file.WriteString(head)
	for i := range 40_000 {
		fmt.Fprintf(&file, "2026-11-20T12:00:00.%03dZ,n-%05d,system.cpu.used_percent,%d.5\n", i%1000, i/100, i)
	}
	path := filepath.Join(t.TempDir(), "readings.CSV")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out := u.must(t, "telemetry", "import", path, "--json")
	if !strings.Contains(out, `"readings": 40000`) || len(parts) != 3 {
		t.Errorf("%d parts: %s", len(parts), out)
	}
	var whole strings.Builder
	whole.WriteString(head)
	for _, p := range parts {
		rest, ok := strings.CutPrefix(p, head)
		if !ok || len(p) > 1<<20+len(head) {
			t.Errorf("a part of %d octets begins %.40q", len(p), p)
		}
		whole.WriteString(rest)
	}
	if whole.String() != file.String() {
		t.Error("the parts are not the file")
	}
	if err := os.WriteFile(path, []byte(file.String()+"bad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.fails(t, ctl.ExitError, "in the part from line 30421", "telemetry", "import", path)
}
