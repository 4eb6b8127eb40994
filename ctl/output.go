package ctl

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
)

// form is how a command prints: a value of -o.
type form string

const (
	formPeople form = ""
	formWide   form = "wide"
	formCSV    form = "csv"
	formJSON   form = "json"
)

// String, Set and Type make a flag of it.
func (f *form) String() string { return string(*f) }

// Set takes wide, csv or json.
func (f *form) Set(s string) error {
	switch form(s) {
	case formWide, formCSV, formJSON:
		*f = form(s)
		return nil
	}
	return fmt.Errorf("expected wide, csv or json, got %q", s)
}

// Type is what help calls the value.
func (*form) Type() string { return "form" }

// formFlag is -o, which all commands have.
func (a *app) formFlag(root *cobra.Command) {
	root.PersistentFlags().VarP(&a.form, "output", "o", "print as `form`: wide (all columns), csv (all columns, for programs: RFC 3339, seconds, octets), or json, which is --json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{string(formWide), string(formCSV), string(formJSON)}, cobra.ShellCompDirectiveNoFileComp))
}

// page is what tables are printed on.
func (a *app) page() *table.Page {
	if a.paper == nil {
		a.paper = &table.Page{Out: a.env.Stdout, Wide: a.form == formWide, CSV: a.form == formCSV}
	}
	return a.paper
}

// instant is a time that a person writes: a time of day, a day and a time of day, both by
// UTC, as haloctl prints them, RFC 3339, or how long ago it was.
type instant struct {
	now  func() time.Time
	text string
}

const instantHelp = "`time` by UTC, such as 14:03, \"2026-11-29 14:03\", 2026-11-29T14:03:00Z, or 15m for so long ago"

// of returns the instant, or zero where none was given. A time of day is the last one.
func (i instant) of() (time.Time, error) {
	text, now := strings.TrimSpace(i.text), i.now().UTC()
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(strings.TrimSuffix(text, " ago")); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
			if at.After(now) {
				at = at.AddDate(0, 0, -1)
			}
			return at, nil
		}
	}
	return time.Time{}, &usageError{fmt.Errorf("expected a time such as 14:03, \"2026-11-29 14:03\", 2026-11-29T14:03:00Z or 15m, got %q", text)}
}
