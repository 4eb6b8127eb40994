package format

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halo.internal/gateway/telemetry"
)

// What was written is read again, each reading of it.
func TestReadsWhatItWrites(t *testing.T) {
	var want []telemetry.Imported
	for _, node := range []string{"n-a", "n-b"} {
		for _, s := range some()[node] {
			want = append(want, telemetry.Imported{Node: node, Metric: s.Metric, Unit: s.Unit, Time: s.Time.UnixMilli(), Value: s.Value})
		}
	}
	order := func(a, b telemetry.Imported) int {
		return strings.Compare(a.Node+a.Metric, b.Node+b.Metric)*2 + int(a.Time-b.Time)
	}
	slices.SortStableFunc(want, order)
	for _, f := range []Format{CSV, NDJSON, Prometheus, OpenMetrics} {
		t.Run(string(f), func(t *testing.T) {
			file := map[Format]string{CSV: "readings.csv", NDJSON: "readings.ndjson", Prometheus: "readings.prom", OpenMetrics: "readings.openmetrics"}[f]
			data, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			var got []telemetry.Imported
			if err := Read(bytes.NewReader(data), f, func(r telemetry.Imported) error { got = append(got, r); return nil }); err != nil {
				t.Fatal(err)
			}
			slices.SortStableFunc(got, order)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadForms(t *testing.T) {
	want := telemetry.Imported{Node: "mast", Metric: "a.b.c", Unit: "m/s", Time: 1795176000250, Value: 2.5}
	for name, tc := range map[string]struct {
		f    Format
		text string
	}{
		"columns in another order, one more, and a byte order mark": {CSV, "\ufeffmetric,node,remark,value,unit,time\r\na.b.c,mast,x,2.5,m/s,2026-11-20T12:00:00.250Z\r\n"},
		"quoted, another time zone":                                 {CSV, "time,node,metric,unit,value\n\"2026-11-20T13:00:00.250+01:00\",\"mast\",a.b.c,\"m/s\",2.5"},
		"members in another order, one more, empty lines":           {NDJSON, "\n{\"value\":25e-1,\"node\":\"mast\",\"metric\":\"a.b.c\",\"unit\":\"m\\u002fs\",\"time\":\"2026-11-20T12:00:00.25Z\",\"by\":null}\n\n"},
		"spaces, comments, escapes":                                 {Prometheus, "# HELP x y\n\n  x{ metric = \"a.b.c\" , node=\"mast\",note=\"\\\\ \\\" \\n }\",unit=\"m/s\", }   2.5   1795176000250  \n"},
		"an exemplar":                                               {OpenMetrics, "x{metric=\"a.b.c\",node=\"mast\",unit=\"m/s\"} 2.5 1795176000.25 # {id=\"4\"} 1 2\n# EOF\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []telemetry.Imported
			if err := Read(strings.NewReader(tc.text), tc.f, func(r telemetry.Imported) error { got = append(got, r); return nil }); err != nil || len(got) != 1 || got[0] != want {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	const csvHead, line = "time,node,metric,unit,value\n", "2026-11-20T12:00:00Z,n-a,a.b.c,,1\n"
	for _, tc := range []struct {
		f          Format
		text, want string
	}{
		{CSV, "2026-11-20T12:00:00Z,n-a,a.b.c,,1", "line 1: expected a first line that names the columns time,node,metric,unit,value"},
		{CSV, csvHead + line + "2026-11-20T12:00:00Z,n-a,a.b.c,1", "line 3: expected 5 fields"},
		{CSV, csvHead + "20.11.2026,n-a,a.b.c,,1", "line 2: time: expected one such as"},
		{CSV, csvHead + "2026-11-20T12:00:00Z,n-a,a.b.c,,one", `line 2: value: expected a number, got "one"`},
		{CSV, csvHead + "2026-11-20T12:00:00Z,n-a,a.b.c,,NaN", `line 2: value: expected a number, got "NaN"`},
		{CSV, csvHead + "2026-11-20T12:00:00Z,n-a,abc,,1", "line 2: "},
		{CSV, csvHead + "2026-11-20T12:00:00Z,n-a,a.b.c,\"a\nb\",1", "line 2: "},
		{CSV, csvHead + strings.Repeat("x", maxLine+1), "line 2: expected at most 4096 octets"},
		{NDJSON, `{"time":"2026-11-20T12:00:00Z","node":"n-a","metric":"a.b.c"}`, "line 1: expected an object"},
		{NDJSON, `[1,2]`, "line 1: expected an object"},
		{NDJSON, `{"time":1,"node":"n-a","metric":"a.b.c","value":1}`, "line 1: expected an object"},
		{Prometheus, "up 1 1", "line 1: expected labels in braces"},
		{Prometheus, `x{node="a"} 1 1`, "line 1: expected the labels metric and node"},
		{Prometheus, `x{node="a",metric="a.b.c"} 1`, "line 1: expected a value and a time"},
		{Prometheus, `x{node="a",metric="a.b.c"} 1 1.5`, "line 1: time: expected Unix milliseconds"},
		{Prometheus, `x{node="a",metric="a.b.c"`, "line 1: expected a label such as"},
		{Prometheus, `x{node="a`, "line 1: expected a quote"},
		{Prometheus, `x{node="a\q"} 1 1`, `line 1: expected \n`},
		{Prometheus, `x{node=a} 1 1`, "line 1: expected a label such as"},
		{OpenMetrics, "# EOF\nx{node=\"a\",metric=\"a.b.c\"} 1 1", "line 2: expected nothing after # EOF"},
		{OpenMetrics, `x{node="a",metric="a.b.c"} 1 1e30`, "line 1: time: expected Unix seconds"},
		{"xml", "", "expected a format csv, ndjson, prometheus or openmetrics"},
	} {
		err := Read(strings.NewReader(tc.text), tc.f, func(telemetry.Imported) error { return nil })
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s %.60q: got %v, want %s", tc.f, tc.text, err, tc.want)
		}
	}
	stop := errors.New("stop")
	if err := Read(strings.NewReader(csvHead+line), CSV, func(telemetry.Imported) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// Whatever comes: what is read can be stored, and errors are about a line.
func FuzzRead(f *testing.F) {
	for i, file := range []string{"readings.csv", "readings.ndjson", "readings.prom", "readings.openmetrics"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, data)
	}
	f.Fuzz(func(t *testing.T, kind int, data []byte) {
		of := []Format{CSV, NDJSON, Prometheus, OpenMetrics}[uint(kind)%4]
		err := Read(bytes.NewReader(data), of, func(r telemetry.Imported) error {
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			return nil
		})
		if _, ok := errors.AsType[*SyntaxError](err); err != nil && !ok {
			t.Errorf("%T %v", err, err)
		}
	})
}
