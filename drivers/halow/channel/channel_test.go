package channel

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"halo.internal/drivers/nl80211"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestTables compares all tables with a golden file, which was compared with
// the tables of the driver.
func TestTables(t *testing.T) {
	var b bytes.Buffer
	for _, table := range tables() {
		fmt.Fprintf(&b, "%s %s\n", table.Region, table.Scheme)
		for _, c := range table.Channels {
			fmt.Fprintf(&b, "%d MHz  %2d  %d.%d MHz  class %2d  %3d\n", c.WidthMHz, c.Number, c.CentreKHz/1000, c.CentreKHz%1000/100, c.Class, c.As5GHz)
		}
	}
	const golden = "testdata/tables.golden"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("tables differ from %s:\n%s", golden, b.String())
	}
}

// TestTablesHold checks what any table must keep to.
func TestTablesHold(t *testing.T) {
	bands := map[string][2]int{
		"US": {902000, 928000}, "AU": {915000, 928000}, "NZ": {915000, 928000}, "EU": {863000, 868000}, "GB": {863000, 919400}, "JP": {920500, 928100},
	}
	for _, table := range tables() {
		numbers, as := map[int]bool{}, map[int]bool{}
		for _, c := range table.Channels {
			if numbers[c.Number] || as[c.As5GHz] {
				t.Errorf("%s %s: %s is there twice, or as %d", table.Region, table.Scheme, c, c.As5GHz)
			}
			numbers[c.Number], as[c.As5GHz] = true, true
			if band := bands[table.Region]; c.LowKHz() < band[0] || c.HighKHz() > band[1] {
				t.Errorf("%s %s: %s leaves the band", table.Region, table.Scheme, c)
			}
			if back, ok := table.Of5GHz(c.As5GHz); !ok || back != c {
				t.Errorf("%s: 5 GHz channel %d stands for %s, want %s", table.Region, c.As5GHz, back, c)
			}
			for i := range c.WidthMHz {
				k, err := c.Kernel(i)
				if err != nil {
					t.Fatal(err)
				}
				if k.Width.MHz() != 20*c.WidthMHz {
					t.Errorf("%s is %s for the kernel", c, k)
				}
				// The control channel is a channel of 1 MHz too, unless the driver
				// has set 5 GHz channels aside for overlapping ones.
				if one, ok := table.Of5GHz((k.FreqMHz - 5000) / 5); ok && (one.WidthMHz != 1 || one.LowKHz() != c.LowKHz()+1000*i) {
					t.Errorf("%s: control channel %d is %s", c, i, one)
				}
			}
		}
	}
}

// TestAmerican holds the table of the United States against the rule by which
// it was published.
func TestAmerican(t *testing.T) {
	table, err := For("US", REVmf) // of which the country has none
	if err != nil {
		t.Fatal(err)
	}
	if n := len(table.Channels); n != 26+13+6+3 {
		t.Errorf("%d channels", n)
	}
	for _, c := range table.Channels {
		if c.CentreKHz != 902000+500*c.Number {
			t.Errorf("%s: its centre is 902 MHz + number/2", c)
		}
	}
}

// TestHeard goes back from what the kernel shows: each channel is found by its control
// channel and centre, whichever control channel its mesh has, and is among those that its
// usual control channel may mean.
func TestHeard(t *testing.T) {
	for _, table := range tables() {
		for _, c := range table.Channels {
			for i := range c.WidthMHz {
				k, err := c.Kernel(i)
				if err != nil {
					t.Fatal(err)
				}
				if got := table.Heard((k.FreqMHz-5000)/5, c.As5GHz); len(got) != 1 || got[0] != c {
					t.Errorf("%s %s: %s with control channel %d is heard as %v", table.Region, table.Scheme, c, i, got)
				}
			}
			k, err := c.Kernel(c.Primary())
			if err != nil {
				t.Fatal(err)
			}
			got := table.Heard((k.FreqMHz-5000)/5, 0)
			if !slices.Contains(got, c) || len(got) > 4 {
				t.Errorf("%s %s: %s is not among %v", table.Region, table.Scheme, c, got)
				continue
			}
			for i := range got[1:] {
				if got[i].WidthMHz > got[i+1].WidthMHz {
					t.Errorf("%s %s: not the narrowest first: %v", table.Region, table.Scheme, got)
				}
			}
		}
	}
	us, err := For("US", Fixed)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		control, centre int
		want            []int
	}{
		"told":                                {161, 163, []int{44}},
		"not told":                            {161, 0, []int{43, 44}},
		"told something else":                 {161, 42, []int{43, 44}},
		"Wi-Fi's":                             {6, 0, nil},
		"no channel":                          {0, 0, nil},
		"a centre that no channel has":        {161, 155 + 1000, []int{43, 44}},
		"of a channel that does not reach it": {132, 163, []int{1, 2}},
	} {
		var got []int
		for _, c := range us.Heard(tc.control, tc.centre) {
			got = append(got, c.Number)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestKernel(t *testing.T) {
	for _, tc := range []struct {
		country string
		scheme  Scheme
		number  int
		primary int
		control int // 5 GHz number
		width   nl80211.Width
		centre  int // 5 GHz number
	}{
		{"US", Fixed, 44, 3, 161, nl80211.Width160, 163},
		{"US", Fixed, 44, 0, 149, nl80211.Width160, 163},
		{"US", Fixed, 1, 0, 132, nl80211.Width20, 132},
		{"JP", Fixed, 36, 0, 36, nl80211.Width80, 42},
		{"JP", Fixed, 38, 0, 52, nl80211.Width80, 58}, // S1G 15, which is 40 elsewhere
		{"JP", Fixed, 38, 3, 64, nl80211.Width80, 58},
		{"AU", REVmf, 43, 0, 100, nl80211.Width160, 114},
		{"AU", REVmf, 51, 0, 149, nl80211.Width80, 155},
		{"AU", REVmf, 55, 7, 177, nl80211.Width160, 163},
		{"AU", IEEE20, 44, 7, 177, nl80211.Width160, 163},
		{"DE", Fixed, 9, 0, 44, nl80211.Width20, 44},
	} {
		table, err := For(tc.country, tc.scheme)
		if err != nil {
			t.Fatal(err)
		}
		c, err := table.Find(tc.number, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Kernel(tc.primary)
		want := nl80211.Channel{FreqMHz: 5000 + 5*tc.control, Width: tc.width, Center1MHz: 5000 + 5*tc.centre}
		if err != nil || got != want {
			t.Errorf("%s %s: got %+v, %v, want %+v", tc.country, c, got, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	us, err := For("US", Fixed)
	if err != nil {
		t.Fatal(err)
	}
	eight, err := us.Find(28, 8)
	if err != nil {
		t.Fatal(err)
	}
	of := func(_ any, err error) error { return err }
	for name, tc := range map[string]struct {
		err  error
		want []string
	}{
		"the number fixes the width": {of(us.Find(28, 2)), []string{"28 of US is 8 MHz wide, not 2", "2 MHz: 2 6 10"}},
		"no such number":             {of(us.Find(52, 0)), []string{"no S1G channel 52", "8 MHz: 12 28 44"}},
		"no such width":              {of(us.Find(52, 16)), []string{"none of 16 MHz"}},
		"no table":                   {of(For("RU", Fixed)), []string{`"RU"`, "AU, EU, GB, JP, NZ, US", "stays off"}},
		"lower case":                 {of(For("us", Fixed)), []string{`"us"`}},
		"scheme not said":            {of(For("AU", Fixed)), []string{"802.11-2020, 802.11-2024, 802.11-REVmf", "that of the driver"}},
		"no such scheme":             {of(For("AU", 9)), []string{"scheme 9"}},
		"primary outside":            {of(eight.Kernel(8)), []string{"0 to 7, got 8"}},
		"negative primary":           {of(eight.Kernel(-1)), []string{"got -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.err == nil || slices.ContainsFunc(tc.want, func(w string) bool { return !strings.Contains(tc.err.Error(), w) }) {
				t.Errorf("got %v, want %q", tc.err, tc.want)
			}
		})
	}
	if eight.Primary() != 3 {
		t.Errorf("primary of 8 MHz: %d", eight.Primary())
	}
	if _, ok := us.Of5GHz(14); ok {
		t.Error("5 GHz has no channel 14")
	}
}
