// Package table prints what haloctl found: for people aligned columns, with ages
// and sizes in words; for programs comma-separated values, with times, seconds and
// octets in full. What comes from the network is made harmless for a terminal on the
// way.
package table

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"
)

// maxCell bounds one cell; no honest value is longer.
const maxCell = 400

// Table is rows under a heading.
type Table struct {
	heading bool // the first row is one
	rows    []row
	wide    int // columns from this one on are printed where all are wanted; 0: all always are
}

// Page is what tables are printed on, in one form.
type Page struct {
	Out  io.Writer
	Wide bool // all columns
	CSV  bool // and nothing but tables

	tables int // so far
}

// Write prints text, which is left out where a program reads tables.
func (p *Page) Write(b []byte) (int, error) {
	if p.CSV {
		return len(b), nil
	}
	return p.Out.Write(b)
}

// New returns a table with that heading; without one, none is printed.
func New(heading ...string) *Table {
	t := &Table{}
	if len(heading) == 0 {
		return t
	}
	cells := make([]Cell, len(heading))
	for i, h := range heading {
		cells[i] = Cell{people: h, programs: strings.ReplaceAll(strings.ToLower(h), " ", "_")}
	}
	t.heading, t.rows = true, append(t.rows, row{cells: cells})
	return t
}

type row struct {
	cells []Cell
	not   reader // for whom it is not
}

type reader int

const (
	people reader = iota + 1
	programs
)

// Row adds a row of cells; what is no Cell becomes one by Of. Those that it lacks at its
// end are empty.
func (t *Table) Row(cells ...any) { t.add(0, cells) }

// People adds a row for people alone, who read in one place what programs find in rows of
// their own.
func (t *Table) People(cells ...any) { t.add(programs, cells) }

// Programs adds a row for programs alone.
func (t *Table) Programs(cells ...any) { t.add(people, cells) }

func (t *Table) add(not reader, cells []any) {
	r := row{make([]Cell, len(cells)), not}
	if t.heading && len(cells) < len(t.rows[0].cells) {
		r.cells = make([]Cell, len(t.rows[0].cells))
	}
	for i, v := range cells {
		c := Of(v)
		r.cells[i] = Cell{people: Clean(c.people), programs: Clean(c.programs)}
	}
	t.rows = append(t.rows, r)
}

// Wide has columns from that one on, counted from 0, printed only where a Page is to have
// all of them.
func (t *Table) Wide(from int) *Table {
	t.wide = from
	return t
}

// Write prints the table, on a Page in its form. Empty cells are printed as a dash, so that
// no column seems to move.
func (t *Table) Write(w io.Writer) error {
	p, ok := w.(*Page)
	if ok && p.CSV {
		if p.tables++; p.tables > 1 && t.heading {
			fmt.Fprintln(p.Out) // CSV reports what failed
		}
		return t.CSV(p.Out)
	}
	narrow := t.wide > 0 && !(ok && p.Wide)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for n, r := range t.rows {
		if r.not == people {
			continue
		}
		cells := r.cells
		if narrow {
			cells = cells[:min(t.wide, len(cells))]
		}
		words := make([]string, len(cells))
		for i, c := range cells {
			if words[i] = c.people; c.people == "" && (n > 0 || !t.heading) {
				words[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(words, "\t")) // Flush reports what failed
	}
	return tw.Flush()
}

// CSV prints the whole table as comma-separated values (RFC 4180) for programs, its heading
// in lower case with _ for spaces. A cell that a spreadsheet would take for a formula gets
// an apostrophe before it: names come from the network.
func (t *Table) CSV(w io.Writer) error {
	cw := csv.NewWriter(w)
	for _, r := range t.rows {
		if r.not == programs {
			continue
		}
		record := make([]string, len(r.cells))
		for k, c := range r.cells {
			record[k] = c.programs
			if c.programs != "" && strings.Contains("=+-@", c.programs[:1]) {
				if _, err := strconv.ParseFloat(c.programs, 64); err != nil {
					record[k] = "'" + c.programs
				}
			}
		}
		if err := cw.Write(record); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

// Invisible tells of control and formatting characters.
func Invisible(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

// Harmless is Clean for a line of any length.
func Harmless(line string) string {
	return strings.Map(func(r rune) rune {
		if Invisible(r) {
			return utf8.RuneError
		}
		return r
	}, line)
}

// Clean makes text harmless for a terminal: control and invisible formatting
// characters, with which a node's name could rewrite the screen, become a
// visible replacement, and the length is bounded.
func Clean(s string) string {
	s = Harmless(strings.TrimSpace(s))
	if n := utf8.RuneCountInString(s); n > maxCell {
		s = string([]rune(s)[:maxCell-1]) + "…"
	}
	return s
}
