// Package table prints what haloctl found for people: aligned columns, ages
// and sizes in words. What comes from the network is made harmless for a
// terminal on the way.
package table

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
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
	rows [][]string
}

// New returns a table with that heading; without one, none is printed.
func New(heading ...string) *Table {
	t := &Table{}
	if len(heading) > 0 {
		t.rows = append(t.rows, heading)
	}
	return t
}

// Row adds a row. Empty cells are printed as a dash, so that no column seems
// to move.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = Clean(c); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// Write prints the table.
func (t *Table) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t")) // Flush reports what failed
	}
	return tw.Flush()
}

// WriteCSV prints the table for other programs: the heading, if wanted, in lower case, and
// empty cells empty.
func (t *Table) WriteCSV(w io.Writer, heading bool) error {
	c := csv.NewWriter(w)
	for i, row := range t.rows {
		if i == 0 && !heading {
			continue
		}
		cells := make([]string, len(row))
		for k, cell := range row {
			switch {
			case i == 0:
				cells[k] = strings.ToLower(cell)
			case cell != "-":
				cells[k] = cell
			}
		}
		if err := c.Write(cells); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
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
