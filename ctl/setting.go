package ctl

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

// settable is one setting, as people read and write it.
type settable struct {
	name, means string
	get         func(apitype.Settings) int64
	set         func(*apitype.UpdateTelemetrySettings, int64)
	read        func(string) (int64, error)
	show        func(int64) table.Cell
}

var settables = []settable{
	{"telemetry.keep_raw_s", "readings as they were made", func(s apitype.Settings) int64 { return s.Telemetry.KeepRawS }, func(u *apitype.UpdateTelemetrySettings, v int64) { u.KeepRawS = &v }, readSeconds, showSeconds},
	{"telemetry.keep_minute_s", "minutes of them", func(s apitype.Settings) int64 { return s.Telemetry.KeepMinuteS }, func(u *apitype.UpdateTelemetrySettings, v int64) { u.KeepMinuteS = &v }, readSeconds, showSeconds},
	{"telemetry.keep_quarter_s", "quarters of an hour", func(s apitype.Settings) int64 { return s.Telemetry.KeepQuarterS }, func(u *apitype.UpdateTelemetrySettings, v int64) { u.KeepQuarterS = &v }, readSeconds, showSeconds},
	{"telemetry.keep_hour_s", "hours", func(s apitype.Settings) int64 { return s.Telemetry.KeepHourS }, func(u *apitype.UpdateTelemetrySettings, v int64) { u.KeepHourS = &v }, readSeconds, showSeconds},
	{"telemetry.budget_bytes", "all files of telemetry", func(s apitype.Settings) int64 { return s.Telemetry.BudgetBytes }, func(u *apitype.UpdateTelemetrySettings, v int64) { u.BudgetBytes = &v }, readBytes, table.Bytes},
}

func (a *app) settingCommand() *cobra.Command {
	set := a.call("set NAME=VALUE…", "change settings; they hold at once", cobra.MinimumNArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		u, err := readChanges(args)
		if err != nil {
			return err
		}
		now, err := c.UpdateSettings(ctx, u)
		if err != nil {
			return err
		}
		return a.showSettings(now)
	})
	set.Long = `Set changes settings: all that are named, or none of them. Times are durations
such as 36h, 90d or 52w, or seconds; sizes are such as 512MiB or 2GiB, or octets.`
	set.Example = "  haloctl setting set telemetry.keep_raw_s=30d telemetry.budget_bytes=512MiB"
	set.ValidArgsFunction = func(*cobra.Command, []string, string) (words []string, _ cobra.ShellCompDirective) {
		for _, s := range settables {
			words = append(words, s.name+"=\t"+s.means)
		}
		return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return group("setting", "what people set of the gateway",
		a.call("list", "all settings", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			now, err := c.Settings(ctx)
			if err != nil {
				return err
			}
			return a.showSettings(now)
		}), set)
}

func (a *app) showSettings(now apitype.Settings) error {
	return a.show(now, func(w io.Writer) error {
		t := table.New("SETTING", "VALUE", "MEANS")
		for _, s := range settables {
			t.Row(s.name, s.show(s.get(now)), s.means)
		}
		return t.Write(w)
	})
}

func readChanges(args []string) (u apitype.UpdateSettings, err error) {
	u.Telemetry = &apitype.UpdateTelemetrySettings{}
	var names []string
	for _, s := range settables {
		names = append(names, s.name)
	}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		known := false
		for _, s := range settables {
			if known = s.name == name; !known {
				continue
			}
			v, err := s.read(text)
			if err != nil {
				return u, &usageError{fmt.Errorf("%s: %w", name, err)}
			}
			s.set(u.Telemetry, v)
			break
		}
		if !ok || !known {
			return u, &usageError{fmt.Errorf("expected NAME=VALUE with one of the names %s, got %q", strings.Join(names, ", "), arg)}
		}
	}
	return u, nil
}

func readSeconds(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	d, err := span(s)
	return int64(d / time.Second), err
}

func showSeconds(n int64) table.Cell {
	return table.Span(time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second)
}

func readBytes(s string) (int64, error) {
	number, unit := s, int64(1)
	for i, end := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(s, end); ok {
			number, unit = strings.TrimSpace(n), 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("expected a size such as 512MiB or 2GiB, or octets, got %q", s)
	}
	return n * unit, nil
}
