package topology

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// golden compares with a file, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is another (-update writes it): got\n%s", file, got)
	}
}

// TestGoldenPicture is the JSON that clients see, of the example of docs/topology.md
// with a stranger and a conflict.
func TestGoldenPicture(t *testing.T) {
	b, err := json.MarshalIndent(exampleWithStrangers(t).draw(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "example.json", append(b, '\n'))
}

func exampleWithStrangers(t testing.TB) *world {
	w := example(t).link("mast", "hut", "eth0")
	for _, n := range []string{"mast", "pump"} {
		w.iface(n, "mesh1").Links = append(w.iface(n, "mesh1").Links, model.ReportLink{Peer: dot11.MAC{2, 9, 9, 9, 9, 9}, SignalDBm: -90})
	}
	w.iface("pump", "eth0").Addresses = append(w.iface("pump", "eth0").Addresses, w.mac("mast", "bat0"))
	return w
}

func TestNetJSON(t *testing.T) {
	var out bytes.Buffer
	p := exampleWithStrangers(t).draw()
	if err := p.WriteNetJSON(&out, "Ridge", "ridge-1", "1.2.3"); err != nil {
		t.Fatal(err)
	}
	golden(t, "example.netjson", out.Bytes())

	// What the schema asks for.
	var file map[string]any
	if err := json.Unmarshal(out.Bytes(), &file); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"type", "protocol", "version", "metric"} {
		if s, ok := file[member].(string); !ok || s == "" {
			t.Errorf("%s: got %v", member, file[member])
		}
	}
	ids := map[string]bool{}
	for _, n := range file["nodes"].([]any) {
		id, ok := n.(map[string]any)["id"].(string)
		if !ok || ids[id] {
			t.Errorf("node %v: expected an id, once", n)
		}
		ids[id] = true
	}
	pairs := map[[2]string]bool{}
	for _, l := range file["links"].([]any) {
		m := l.(map[string]any)
		pair := [2]string{m["source"].(string), m["target"].(string)}
		if !ids[pair[0]] || !ids[pair[1]] || pairs[pair] || m["cost"].(float64) < 1 {
			t.Errorf("link %v", m)
		}
		pairs[pair] = true
	}
	if len(p.Links) <= len(pairs) {
		t.Errorf("%d links of %d pairs: the example has no second transport", len(p.Links), len(pairs))
	}
	if nothing := (graph.Picture{}).NetJSON("", "", "1"); nothing.Nodes == nil || nothing.Links == nil {
		t.Errorf("got %+v", nothing)
	}
}
