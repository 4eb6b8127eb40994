package i2c_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/aht20"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

const docs = "../../docs/sensors.md"

func readDocs(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The example that people begin with is read as periph's driver reads the chip.
func TestExampleOfTheDocs(t *testing.T) {
	_, text, ok := strings.Cut(readDocs(t), "```toml\n")
	text, _, _ = strings.Cut(text, "```")
	if !ok {
		t.Fatalf("expected an example in %s", docs)
	}
	for _, f := range i2c.Lint("aht20.toml", []byte(text)) {
		if f.Key != "identity" {
			t.Errorf("%v", &f.Problem)
		}
	}
	template, err := i2c.Parse("aht20.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for f := 0.0; f <= 1; f += 0.125 {
		synctest.Test(t, func(t *testing.T) {
			bus := chips.NewBus()
			chip := chips.NewAHT20(-39+120*f, 99*f)
			bus.Attach(0x38, chip)
			device := open(t, template, bus, 0x38, nil)
			got := readAgain(t, template, device)
			d, err := aht20.NewI2C(bus, nil)
			if err != nil {
				t.Fatal(err)
			}
			var e physic.Env
			if err := d.Sense(&e); err != nil {
				t.Fatal(err)
			}
			same(t, got, map[string]float64{"temperature_c": celsius(e.Temperature), "humidity_percent": percent(e.Humidity)}, 0.0001)
			chip.LosePower()
			same(t, readAgain(t, template, device), got, 0)
		})
	}
}

// The table names all chips, and no others; where they are, and whether they are
// recognised, is true.
func TestTableOfTheDocs(t *testing.T) {
	rows := map[string][]string{}
	var names []string
	for line := range strings.Lines(readDocs(t)) {
		if m := regexp.MustCompile("^\\| `([a-z0-9-]+)` ").FindStringSubmatch(line); m != nil && strings.Count(line, "|") == 7 {
			rows[m[1]] = strings.Split(line, "|")
			names = append(names, m[1])
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("expected the table in order, got %v", names)
	}
	for _, d := range i2c.Builtin() {
		s := d.Spec()
		row, ok := rows[s.Name]
		if !ok {
			t.Errorf("expected %s in the table of %s", s.Name, docs)
			continue
		}
		delete(rows, s.Name)
		want := "yes"
		if len(s.Identity) == 0 {
			want = "no"
		} else if s.WeakIdentity {
			want = "weakly"
		}
		if got := strings.TrimSpace(row[3]); got != want {
			t.Errorf("%s is recognised: expected %q, got %q", s.Name, want, got)
		}
		for _, a := range []uint16{s.Addresses[0], s.Addresses[len(s.Addresses)-1]} {
			if hex := fmt.Sprintf("0x%02X", a); !strings.Contains(row[2], hex) {
				t.Errorf("%s: expected %s in %q", s.Name, hex, row[2])
			}
		}
	}
	for name := range rows {
		t.Errorf("%s is in the table and not built in", name)
	}
}
