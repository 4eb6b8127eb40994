package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// hour is where the tests' readings lie.
func hour() time.Time { return time.Now().UTC().Add(-2 * time.Hour).Truncate(time.Hour) }

// measured stores an hour of a node's readings, one every ten seconds, and returns its ID:
// the gateway's own, which the registry knows.
func (f *fixture) measured() string {
	f.t.Helper()
	id := f.Registry.Gateway()
	s := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("system.cpu.used_percent", "%", 1), wire.NewMetric("net.wg0.rx_bytes", "B", 0)}}
	if err := f.Telemetry.PutSchema(f.t.Context(), id, s); err != nil {
		f.t.Fatal(err)
	}
	for seq := range uint64(60) {
		b := wire.Batch{Header: wire.Header{BatchID: wire.ID(3, seq+1), Schema: s.ID(), Clock: model.ClockGateway}}
		for i := range 6 {
			n := int64(seq)*6 + int64(i)
			cpu := 200 + n
			if n == 100 {
				cpu = 990 // a peak
			}
			b.Reports = append(b.Reports, wire.Report{Time: hour().Add(time.Duration(n) * 10 * time.Second).UnixMilli(), Values: []wire.Value{wire.Int(cpu), wire.Int(1000 * n)}})
		}
		data, err := b.Encode(s)
		if err != nil {
			f.t.Fatal(err)
		}
		if o, err := f.Telemetry.Append(f.t.Context(), []telemetry.Entry{{Node: id, Schema: s, Batch: b, Data: data}}); err != nil || o[0] != telemetry.Stored {
			f.t.Fatal(o, err)
		}
	}
	return id
}

func span(values url.Values) string {
	values.Set("from", hour().Format(time.RFC3339))
	values.Set("to", hour().Add(time.Hour).Format(time.RFC3339))
	return values.Encode()
}

func TestRanges(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.measured()
	ask := func(q url.Values) (l apitype.SeriesList) {
		t.Helper()
		f.want(http.StatusOK, "GET", "/v1/telemetry/range?"+span(q), nil, &l)
		return l
	}
	l := ask(url.Values{"points": {"10"}, "metric": {"system.*"}})
	if l.StepS != 600 || len(l.Items) != 1 || len(l.Items[0].Points) != 6 || l.Items[0].Node != id || l.Items[0].Metric != "system.cpu.used_percent" {
		t.Fatalf("%+v", l)
	}
	if p := l.Items[0].Points[1]; p.Max != 99 || p.Min != 26 || p.Count != 60 || !p.Time.Equal(hour().Add(10*time.Minute)) {
		t.Errorf("the peak is lost: %+v", p)
	}
	l = ask(url.Values{"step_s": {"600"}, "metric": {"net.wg0.rx_bytes"}, "func": {"rate"}, "node": {id}})
	if p := l.Items[0].Points; len(p) != 6 || p[3].Value != 100 {
		t.Errorf("rate: %+v", p)
	}
	l = ask(url.Values{"step_s": {"0.5"}, "metric": {"net.wg0.rx_bytes", "system.cpu.used_percent"}, "limit": {"1"}})
	if len(l.Items) != 1 || len(l.Items[0].Points) != 360 || l.Next == "" {
		t.Fatalf("first page: %d, next %q", len(l.Items), l.Next)
	}
	l = ask(url.Values{"step_s": {"0.5"}, "metric": {"net.wg0.rx_bytes", "system.cpu.used_percent"}, "limit": {"1"}, "cursor": {l.Next}})
	if len(l.Items) != 1 || l.Items[0].Metric != "system.cpu.used_percent" || l.Next != "" {
		t.Fatalf("second page: %+v", l)
	}
	l = ask(url.Values{"step_s": {"3600"}, "across": {"sum"}, "func": {"max"}})
	if len(l.Items) != 2 || l.Items[0].Node != "" || l.Items[1].Points[0].Value != 99 {
		t.Errorf("across: %+v", l)
	}
	for query, status := range map[string]int{
		"step_s=0": 422, "step_s=0.01&from=2026-01-01T00:00:00Z": 422, "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": 422, "func=median": 422,
		"points=0": 422, "cursor=x": 400, "node=nobody": 404, "across=rate": 422, "limit=0": 422,
	} {
		f.want(status, "GET", "/v1/telemetry/range?"+query, nil, nil)
	}
	var m apitype.MetricList
	f.want(http.StatusOK, "GET", "/v1/telemetry/metrics?limit=1&"+span(url.Values{}), nil, &m)
	if len(m.Items) != 1 || m.Items[0] != (apitype.Metric{Metric: "net.wg0.rx_bytes", Unit: "B"}) {
		t.Errorf("%+v", m)
	}
	var second apitype.MetricList
	f.want(http.StatusOK, "GET", "/v1/telemetry/metrics?limit=1&cursor="+m.Next+"&"+span(url.Values{}), nil, &second)
	if len(second.Items) != 1 || second.Items[0].Metric != "system.cpu.used_percent" || second.Next != "" {
		t.Errorf("%+v", second)
	}
	var marks apitype.MarkList
	f.want(http.StatusOK, "GET", "/v1/nodes/"+id+"/telemetry/marks?"+span(url.Values{}), nil, &marks)
	if len(marks.Items) != 1 || marks.Items[0].Kind != telemetry.MarkBoot || marks.Items[0].Boot != 3 || marks.Items[0].Until != nil {
		t.Errorf("%+v", marks)
	}
}

// The names of metrics and units may be as long as they may: the cursors made of them are
// taken.
func TestCursorsOfTheLongestNames(t *testing.T) {
	f := newFixture(t)
	id := f.Registry.Gateway()
	var s wire.Schema
	for _, last := range "ab" {
		s.Metrics = append(s.Metrics, wire.NewMetric("x.y."+strings.Repeat("m", wire.MaxName-len("x.y.")-1)+string(last), "\x00"+strings.Repeat("u", wire.MaxUnit-1), 0))
	}
	if err := f.Telemetry.PutSchema(t.Context(), id, s); err != nil {
		t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Schema: s.ID(), Clock: model.ClockGPS}, Reports: []wire.Report{{Time: hour().UnixMilli(), Values: []wire.Value{wire.Int(1), wire.Int(2)}}}}
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Telemetry.Append(t.Context(), []telemetry.Entry{{Node: id, Schema: s, Batch: b, Data: data}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/telemetry/range?step_s=60&limit=1&", "/v1/telemetry/metrics?limit=1&"} {
		var names []string
		for next := ""; ; {
			var l struct {
				Items []struct {
					Metric string `json:"metric"`
				} `json:"items"`
				Next string `json:"next"`
			}
			query := url.Values{}
			if next != "" {
				query.Set("cursor", next)
			}
			f.want(http.StatusOK, "GET", path+span(query), nil, &l)
			for _, i := range l.Items {
				names = append(names, i.Metric)
			}
			if next = l.Next; next == "" || len(names) > 2 {
				break
			}
		}
		if len(names) != 2 || names[0] != s.Metrics[0].Name || names[1] != s.Metrics[1].Name {
			t.Errorf("%s: got %q", path, names)
		}
	}
}

// send posts a file and returns the answer.
func (f *fixture) send(status int, query, file string, out any) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), "POST", f.url+"/v1/telemetry/import?"+query, strings.NewReader(file))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	if resp.StatusCode != status {
		f.t.Fatalf("import?%s: got %s, want %d: %s", query, resp.Status, status, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		f.t.Fatalf("%v: %s", err, b)
	}
}

// What one gateway exports another one imports, in each format, and exports alike.
func TestExportAndImport(t *testing.T) {
	a := newFixture(t)
	id := a.measured()
	for format, media := range map[string]string{"csv": "text/csv", "ndjson": "application/x-ndjson", "prometheus": "text/plain; version=0.0.4", "openmetrics": "application/openmetrics-text"} {
		t.Run(format, func(t *testing.T) {
			path := "/v1/telemetry/export?" + span(url.Values{"format": {format}, "node": {id}})
			resp, file := a.do("GET", path, nil)
			if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), media) || !strings.Contains(resp.Header.Get("Content-Disposition"), "attachment; filename=") {
				t.Fatalf("%s %v %.200s", resp.Status, resp.Header, file)
			}
			b := newFixture(t)
			moved := bytes.ReplaceAll(file, []byte(id), []byte(b.Registry.Gateway()))
			var got apitype.Import
			b.send(http.StatusOK, "format="+format, string(moved), &got)
			if got.Readings != 720 || got.Stored != 720 {
				t.Fatalf("%+v", got)
			}
			b.send(http.StatusOK, "format="+format, string(moved), &got)
			if got.Readings != 720 || got.Duplicate != 720 || got.Stored != 0 {
				t.Errorf("again: %+v", got)
			}
			_, again := b.do("GET", strings.ReplaceAll(path, id, b.Registry.Gateway()), nil)
			lines := func(b []byte) map[string]int {
				m := map[string]int{}
				for line := range bytes.Lines(b) {
					m[string(line)]++
				}
				return m
			}
			want, have := lines(moved), lines(again)
			for line := range want {
				if have[line] != want[line] {
					t.Fatalf("lost: %s", line)
				}
			}
			if len(want) != len(have) {
				t.Errorf("%d lines, want %d", len(have), len(want))
			}
		})
	}
	a.want(http.StatusNotFound, "GET", "/v1/telemetry/export?node=nobody", nil, nil)
	a.want(http.StatusUnprocessableEntity, "GET", "/v1/telemetry/export?format=xml", nil, nil)
}

func TestImportSaysWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.measured()
	at := func(s int) string { return hour().Add(time.Duration(s) * time.Second).Format(time.RFC3339) }
	var got apitype.Import
	f.send(http.StatusOK, "format=csv", "time,node,metric,value\n"+
		at(0)+","+id+",system.cpu.used_percent,1\n"+ // in no unit: another series
		at(0)+",ghost,system.cpu.used_percent,1\n"+
		"2019-01-01T00:00:00Z,"+id+",system.cpu.used_percent,1\n", &got)
	if got.Readings != 3 || got.Stored != 1 || got.Unknown != 1 || got.Misdated != 1 || fmt.Sprint(got.Nodes) != "[ghost]" {
		t.Errorf("%+v", got)
	}
	var p apitype.Problem
	f.send(http.StatusUnprocessableEntity, "format=csv", "time,node,metric,value\n"+at(1)+","+id+",a.b.c,1\n"+at(2)+","+id+",a.b.c,one\n", &p)
	if p.Detail != `line 3: value: expected a number, got "one"; of 1 readings before it 1 were stored` {
		t.Errorf("%q", p.Detail)
	}
	f.send(http.StatusUnprocessableEntity, "", "", &p) // no format
	f.send(http.StatusOK, "format=ndjson", "", &got)
	var audit apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit", nil, &audit)
	if e := audit.Items[0]; e.Action != "import-telemetry" || e.Status != 200 || e.Target != "ndjson" {
		t.Errorf("%+v", e)
	}
}

// An import that ends before its time leaves what came.
func TestAnImportThatIsCut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.measured()
	body, end := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", f.url+"/v1/telemetry/import?format=csv", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			err = fmt.Errorf("an answer %s", resp.Status)
		}
		done <- err
	}()
	fmt.Fprintf(end, "time,node,metric,value\n%s,%s,cut.off.here,1\n", hour().Format(time.RFC3339), id)
	end.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-done; !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
		t.Errorf("%v", err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var l apitype.SampleList
		f.want(http.StatusOK, "GET", "/v1/nodes/"+id+"/telemetry/range?metric=cut.&"+span(url.Values{}), nil, &l)
		if len(l.Items) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", l)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.Registry.Gateway()
	s := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("radio.wlan0.signal_dbm", "dBm", 0)}}
	if err := f.Telemetry.PutSchema(t.Context(), id, s); err != nil {
		t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Schema: s.ID(), Clock: model.ClockGPS}, Reports: []wire.Report{{Time: time.Now().UnixMilli(), Values: []wire.Value{wire.Int(-61)}}}}
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Telemetry.Append(t.Context(), []telemetry.Entry{{Node: id, Schema: s, Batch: b, Data: data}}); err != nil {
		t.Fatal(err)
	}
	resp, text := f.do("GET", "/metrics", nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	for _, want := range []string{
		`(?m)^halo_radio_signal_dbm\{node="` + id + `",name="[^"]+",metric="radio\.wlan0\.signal_dbm",thing="wlan0",unit="dBm"\} -61$`,
		`(?m)^gateway_info\{version="[^"]+",node="` + id + `",network="north-ridge"\} 1$`,
		`(?m)^gateway_telemetry_budget_bytes [0-9.e+]+$`,
		`(?m)^gateway_node_up\{node="` + id + `",name="[^"]+"\} [01]$`,
		`(?m)^process_resident_memory_bytes [0-9.e+]+$`,
	} {
		if !regexp.MustCompile(want).Match(text) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllSubmatch(text, -1) {
		if names[string(m[1])] {
			t.Errorf("%s is told of twice", m[1])
		}
		names[string(m[1])] = true
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var s apitype.Settings
	f.want(http.StatusOK, "GET", "/v1/settings", nil, &s)
	was := s
	budget := int64(64 << 20)
	f.want(http.StatusOK, "PATCH", "/v1/settings", apitype.UpdateSettings{Telemetry: &apitype.UpdateTelemetrySettings{BudgetBytes: &budget}}, &s)
	was.Telemetry.BudgetBytes = budget
	if s != was || f.Settings.Get() != was {
		t.Errorf("%+v", s)
	}
	var p apitype.Problem
	for _, body := range []string{`{"telemetry":{"keep_raw_s":1}}`, `{"telemetry":{"budget_bytes":1.5}}`, `{"telemetry":{"keep_raw_s":100000000}}`, `{"colour":"red"}`} {
		f.want(http.StatusUnprocessableEntity, "PATCH", "/v1/settings", json.RawMessage(body), &p)
		if len(p.Errors) == 0 {
			t.Errorf("%s: %+v", body, p)
		}
	}
	if f.Settings.Get() != was {
		t.Errorf("%+v", f.Settings.Get())
	}
	var audit apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit", nil, &audit)
	if e := audit.Items[len(audit.Items)-1]; len(audit.Items) < 5 {
		t.Errorf("%d entries, the first %+v", len(audit.Items), e)
	}
	named := 0
	for _, e := range audit.Items {
		if e.Action == "update-settings" && e.Target == "telemetry.budget_bytes" && e.Status == 200 {
			named++
		}
	}
	if named != 1 {
		t.Errorf("%+v", audit.Items)
	}
}
