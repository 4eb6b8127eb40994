package table

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestColumnsLineUp(t *testing.T) {
	tab := New("NAME", "STATE", "SEEN")
	tab.Row("n01", "ok", "5 s ago")
	tab.Row("gateway-ö", "", "now")
	tab.Row("evil\x1b[2J\tname", "failed: halo-mesh\nfake row", "1 d ago")
	var b strings.Builder
	if err := tab.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `
NAME           STATE                       SEEN
n01            ok                          5 s ago
gateway-ö      -                           now
evil�[2J�name  failed: halo-mesh�fake row  1 d ago
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("n01")
	f.Add("\x1b]0;owned\a")
	f.Add("a\u202eb\x00\xff\u2028")
	f.Add(strings.Repeat("ä", 500))
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s)
		if !utf8.ValidString(c) || utf8.RuneCountInString(c) > maxCell {
			t.Fatalf("%q is cleaned to %q", s, c)
		}
		for _, r := range c {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%q keeps %U", s, r)
			}
		}
		if again := Clean(c); again != c {
			t.Fatalf("%q is cleaned to %q and then to %q", s, c, again)
		}
	})
}

func TestCSV(t *testing.T) {
	tab := New("NODE", "NEXT HOP", "SIGNAL")
	tab.Row("mast", "", "-61 dBm")
	tab.Row("=cmd()", "a, \"b\"", "-61")
	tab.Row("+49", "-x", "1e5")
	tab.Row("hill", Age(time.Time{}, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)), In("dBm", "%.0f", -61.5))
	var b strings.Builder
	if err := tab.CSV(&b); err != nil {
		t.Fatal(err)
	}
	const want = "node,next_hop,signal\nmast,,'-61 dBm\n'=cmd(),\"a, \"\"b\"\"\",-61\n+49,'-x,1e5\nhill,2026-11-23T12:00:00.000Z,-61.5\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// What people read in one row, programs find in several.
func TestRowsForPeopleOrPrograms(t *testing.T) {
	about := New()
	about.Row("Node", "mast")
	about.People("Links", "2 live of 3")
	about.Programs("Links", 3)
	about.Programs("Links live", 2)
	for _, tc := range []struct {
		page Page
		want string
	}{
		{Page{}, "Node   mast\nLinks  2 live of 3\n"},
		{Page{Wide: true}, "Node   mast\nLinks  2 live of 3\n"},
		{Page{CSV: true}, "Node,mast\nLinks,3\nLinks live,2\n"},
	} {
		var b strings.Builder
		tc.page.Out = &b
		if err := about.Write(&tc.page); err != nil || b.String() != tc.want {
			t.Errorf("got %q, %v, want %q", b.String(), err, tc.want)
		}
	}
}

func TestAPageHasOneForm(t *testing.T) {
	print := func(p Page) string {
		var b strings.Builder
		p.Out = &b
		fmt.Fprintln(&p, "Two nodes:")
		nodes := New("NODE", "STATE", "ID").Wide(2)
		nodes.Row("mast", "ok", "n-a")
		nodes.Row("hill", "", "n-b")
		more := New().Wide(2)
		more.Row("lake", "ok", "n-c")
		links := New("A", "B")
		links.Row("mast", "hill")
		for _, x := range []*Table{nodes, more, links} {
			if err := x.Write(&p); err != nil {
				t.Fatal(err)
			}
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		page Page
		want string
	}{
		"people": {Page{}, "Two nodes:\nNODE  STATE\nmast  ok\nhill  -\nlake  ok\nA     B\nmast  hill\n"},
		"wide":   {Page{Wide: true}, "Two nodes:\nNODE  STATE  ID\nmast  ok     n-a\nhill  -      n-b\nlake  ok  n-c\nA     B\nmast  hill\n"},
		"csv":    {Page{CSV: true}, "node,state,id\nmast,ok,n-a\nhill,,n-b\nlake,ok,n-c\n\na,b\nmast,hill\n"},
	} {
		if got := print(c.page); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}
