// Package table prints what haloctl found for people: aligned columns, ages
// and sizes in words. What comes from the network is made harmless for a
// terminal on the way.
package table

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxCell bounds one cell; no honest value is longer.
const maxCell = 400

// Table is rows under a heading.
type Table struct {
	heading bool // the first row is one
	rows    [][]string
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
	if len(heading) > 0 {
		t.heading, t.rows = true, append(t.rows, heading)
	}
	return t
}

// Row adds a row.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Clean(c)
	}
	t.rows = append(t.rows, row)
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
	for n, row := range t.rows {
		if row = slices.Clone(row); narrow {
			row = row[:min(t.wide, len(row))]
		}
		for i, c := range row {
			if c == "" && (n > 0 || !t.heading) {
				row[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(row, "\t")) // Flush reports what failed
	}
	return tw.Flush()
}

// CSV prints the whole table as comma-separated values (RFC 4180), its heading in lower case
// with _ for spaces. A cell that a spreadsheet would take for a formula gets an apostrophe
// before it: names come from the network.
func (t *Table) CSV(w io.Writer) error {
	cw := csv.NewWriter(w)
	for i, row := range t.rows {
		row = slices.Clone(row)
		for k, c := range row {
			switch {
			case i == 0 && t.heading:
				row[k] = strings.ReplaceAll(strings.ToLower(c), " ", "_")
			case c != "" && strings.Contains("=+-@", c[:1]):
				if _, err := strconv.ParseFloat(c, 64); err != nil {
					row[k] = "'" + c
				}
			}
		}
		if err := cw.Write(row); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

// Clean makes text harmless for a terminal: control and invisible formatting
// characters, with which a node's name could rewrite the screen, become a
// visible replacement, and the length is bounded.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return utf8.RuneError
		}
		return r
	}, strings.TrimSpace(s))
	if n := utf8.RuneCountInString(s); n > maxCell {
		s = string([]rune(s)[:maxCell-1]) + "…"
	}
	return s
}

// Age tells how long ago t was, as one number with a unit.
func Age(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	if d < 0 {
		if d > -5*time.Second { // clocks are read to the second
			return "now"
		}
		return "in " + Span(-d)
	}
	if d < time.Second {
		return "now"
	}
	return Span(d) + " ago"
}

// Span is a duration as one number with a unit.
func Span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + " d"
}

// Bytes is a size in binary units.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// Value is a reading with as many digits as are worth reading.
func Value(v float64) string {
	if math.Abs(v) >= 1e5 && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}
