package format

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/gateway/telemetry"
	"halo.internal/model/apitype"
)

var update = flag.Bool("update", false, "write the golden files anew")

var begin = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// pages is a source that has two readings on a page.
type pages map[string][]apitype.Sample

func (p pages) Samples(_ context.Context, q telemetry.SampleQuery) (apitype.SampleList, error) {
	l := apitype.SampleList{Node: q.Node}
	var all []apitype.Sample
	for _, s := range p[q.Node] {
		if len(q.Metrics) == 0 || slices.Contains(q.Metrics, s.Metric) {
			all = append(all, s)
		}
	}
	from := 0
	if q.Cursor != "" {
		var err error
		if from, err = strconv.Atoi(q.Cursor); err != nil {
			return l, err
		}
	}
	to := min(len(all), from+2)
	if l.Items = all[from:to]; to < len(all) {
		l.Next = strconv.Itoa(to)
	}
	return l, nil
}

func (p pages) Metrics(_ context.Context, _, _ time.Time, wanted []string) (list []apitype.Metric, err error) {
	for _, samples := range p {
		for _, s := range samples {
			if len(wanted) == 0 || slices.Contains(wanted, s.Metric) {
				list = append(list, apitype.Metric{Metric: s.Metric, Unit: s.Unit})
			}
		}
	}
	return list, nil
}

func some() pages {
	at := func(s int) time.Time { return begin.Add(time.Duration(s)*time.Second + 250*time.Millisecond) }
	return pages{
		"n-a": {
			{Time: at(0), Metric: "system.cpu.used_percent", Unit: "%", Value: 23.5},
			{Time: at(0), Metric: "radio.wlan-0.signal_dbm", Unit: "dBm", Value: -61},
			{Time: at(10), Metric: "system.cpu.used_percent", Unit: "%", Value: 1e21},
			{Time: at(10), Metric: "radio.wlan1.signal_dbm", Unit: "dBm", Value: -70.25},
			{Time: at(20), Metric: "gps.fix.lat_deg", Unit: "deg", Value: 48.137154},
		},
		"n-b": {{Time: at(5), Metric: "system.cpu.used_percent", Unit: "%", Value: 0}},
	}
}

func TestFormats(t *testing.T) {
	names := map[string]string{"n-a": `mast "1"`, "n-b": "barn"}
	sel := Selection{Nodes: []string{"n-a", "n-b"}, Names: names, From: begin, To: begin.Add(time.Hour)}
	var latest []apitype.Reading
	for _, node := range sel.Nodes {
		for _, s := range some()[node] {
			latest = append(latest, apitype.Reading{Node: node, Metric: s.Metric, Unit: s.Unit, Value: s.Value, Time: s.Time})
		}
	}
	latest = slices.Delete(latest, 0, 1) // of each series one
	old := apitype.Reading{Node: "n-c", Metric: "system.cpu.used_percent", Value: 9, Time: begin.Add(-time.Hour)}
	for name, write := range map[string]func(io.Writer) error{
		"readings.csv":         func(w io.Writer) error { return Write(t.Context(), w, CSV, some(), sel) },
		"readings.ndjson":      func(w io.Writer) error { return Write(t.Context(), w, NDJSON, some(), sel) },
		"readings.prom":        func(w io.Writer) error { return Write(t.Context(), w, Prometheus, some(), sel) },
		"readings.openmetrics": func(w io.Writer) error { return Write(t.Context(), w, OpenMetrics, some(), sel) },
		"latest.prom": func(w io.Writer) error {
			return Latest(w, append(latest, old), names, begin.Add(time.Minute), 10*time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
