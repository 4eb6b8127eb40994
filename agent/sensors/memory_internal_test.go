package sensors

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/model"
)

// TestOfADamagedMemoryTheGoodIsKept, and the damaged file too.
func TestOfADamagedMemoryTheGoodIsKept(t *testing.T) {
	const good = `{"bus":"one","address":64,"chip":"ina219","label":"solar","assigned":true}`
	for name, tc := range map[string]struct {
		text, want string
		entries    int
	}{
		"good":                 {"[" + good + "]", "", 1},
		"an address":           {"[" + good + `,{"bus":"one","address":4000,"chip":"bh1750","label":"sky"}]`, "entry 1: ", 1},
		"another type":         {`[{"bus":7},` + good + "]", "entry 0: ", 1},
		"cut short":            {"[" + good + ",", "unexpected end", 0},
		"the same place twice": {"[" + good + "," + good + "]", "", 1},
		"too large":            {"[" + good + strings.Repeat(" ", maxMemory) + "]", "expected at most", 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "sensors.json")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := openMemory(file)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if len(m.entries) != tc.entries {
				t.Errorf("got %+v", m.entries)
			}
			if err := m.put(entry{Bus: "two", Address: 0x23, Chip: "bh1750", Label: "sky"}); err != nil {
				t.Error(err)
			}
			kept := file
			if tc.want != "" {
				kept += damaged
			}
			if b, err := os.ReadFile(kept); err != nil || tc.want != "" && string(b) != tc.text {
				t.Errorf("the damaged file: %v", err)
			}
			if again, err := openMemory(file); err != nil || len(again.entries) != tc.entries+1 {
				t.Errorf("at the next start: %+v, %v", again.entries, err)
			}
		})
	}
}

// TestWhatCannotBeReadIsNotWrittenOver: a card may give it at another time.
func TestWhatCannotBeReadIsNotWrittenOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sensors.json")
	if err := os.Mkdir(file, 0o700); err != nil { // no user may read that as a file
		t.Fatal(err)
	}
	m, err := openMemory(file)
	if err == nil {
		t.Fatal("a folder was read")
	}
	e := entry{Bus: "one", Address: 0x40, Chip: "ina219", Label: "solar", Assigned: true}
	if err := m.put(e); err == nil || !strings.Contains(err.Error(), "not written over") {
		t.Errorf("got %v", err)
	}
	if got, ok := m.of("one", 0x40); !ok || got.Label != "solar" {
		t.Errorf("until the next start it is not known: %+v", got)
	}
	if i, err := os.Stat(file); err != nil || !i.IsDir() {
		t.Errorf("what was there: %v", err)
	}
}

// TestWhatAPersonSaidIsNeverForgotten for what was recognised.
func TestWhatAPersonSaidIsNeverForgotten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sensors.json")
	m, err := openMemory(file)
	if err != nil {
		t.Fatal(err)
	}
	place := func(i int) (string, uint16) { return fmt.Sprintf("i2c.%d", i/100), uint16(3 + i%100) }
	for i := range maxEntries {
		e := entry{Chip: model.ChipNone, Assigned: true}
		e.Bus, e.Address = place(i)
		if m.full(e) {
			t.Fatalf("full with %d", i)
		}
		if err := m.put(e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		bus, addr := place(maxEntries + i)
		m.claim(bus, addr, "bme280")
		if err := m.put(entry{Bus: bus, Address: addr, Chip: "bme280", Label: fmt.Sprint("x", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var more entry
	more.Bus, more.Address = place(2 * maxEntries)
	if more.Assigned = true; !m.full(more) {
		t.Error("there is room for more of a person's")
	}
	for _, of := range []func() *memory{func() *memory { return m }, func() *memory {
		again, err := openMemory(file)
		if err != nil {
			t.Error(err)
		}
		return again
	}} {
		m := of()
		for i := range maxEntries {
			bus, addr := place(i)
			if e, ok := m.of(bus, addr); !ok || !e.Assigned {
				t.Fatalf("what a person said of %s %#x is forgotten", bus, addr)
			}
		}
		if len(m.entries) > maxEntries+1 {
			t.Errorf("%d entries", len(m.entries))
		}
	}
}
