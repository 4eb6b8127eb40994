// Package step prints what a build is doing and how long each part took, so
// that a person sees progress and a slow part is found without a profiler.
package step

import (
	"fmt"
	"io"
	"time"
)

// Printer writes one line per step.
type Printer struct{ w io.Writer }

// NewPrinter returns a printer to w.
func NewPrinter(w io.Writer) Printer { return Printer{w} }

// Do runs f as a named step.
func (p Printer) Do(name string, f func() error) error {
	start := time.Now()
	fmt.Fprintf(p.w, "%-34s", name)
	if err := f(); err != nil {
		fmt.Fprintf(p.w, " failed after %.1f s\n", time.Since(start).Seconds())
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(p.w, " %6.1f s\n", time.Since(start).Seconds())
	return nil
}

// Note prints a line of its own.
func (p Printer) Note(format string, args ...any) {
	fmt.Fprintf(p.w, format+"\n", args...)
}
