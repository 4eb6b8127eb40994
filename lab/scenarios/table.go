package scenarios

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Worst is how long the slowest machine took to a stage; ok is false where some
// machine never came there, or there was none.
func (r Result) Worst(s Stage) (worst time.Duration, ok bool) {
	for _, m := range r.Machines {
		d, there := m.Stages[s]
		if !there {
			return 0, false
		}
		worst = max(worst, d)
	}
	return worst, len(r.Machines) > 0
}

// Table prints results: how long the slowest legitimate machine took to each stage,
// in seconds. Of a scenario that was run several times it is one line, with the
// median and the slowest run.
func Table(out io.Writer, results []Result) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "SCENARIO\tMESH\tRUNS\tPASSED\t"
	for _, s := range Stages {
		head += strings.ToUpper(string(s)) + "\t"
	}
	fmt.Fprintln(t, head+"TOOK\tSINCE\t")
	for _, group := range grouped(results) {
		first, passed, took := group[0], 0, time.Duration(0)
		for _, r := range group {
			took += r.Took
			if r.OK {
				passed++
			}
			if first.Since == "" {
				first.Since = r.Since
			}
		}
		line := fmt.Sprintf("%s\t%s\t%d\t%d\t", first.Scenario, first.Mesh, len(group), passed)
		for _, s := range Stages {
			line += times(group, s) + "\t"
		}
		fmt.Fprintf(t, "%s%.0f s\t%s\t\n", line, took.Seconds(), first.Since)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if !r.OK {
			if _, err := fmt.Fprintf(out, "\n%s failed: %s\n", r.Scenario, r.Failure); err != nil {
				return err
			}
		}
	}
	return nil
}

// grouped puts the runs of each scenario together, in the order of the first.
func grouped(results []Result) (groups [][]Result) {
	at := map[string]int{}
	for _, r := range results {
		i, ok := at[r.Scenario]
		if !ok {
			i = len(groups)
			at[r.Scenario] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

func median(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// times are the median and the slowest of several runs, or the time of one.
func times(group []Result, s Stage) string {
	var all []time.Duration
	for _, r := range group {
		if d, ok := r.Worst(s); ok {
			all = append(all, d)
		}
	}
	switch len(all) {
	case 0:
		return "-"
	case 1:
		return fmt.Sprintf("%.1f s", all[0].Seconds())
	}
	return fmt.Sprintf("%.1f s (%.1f)", median(all).Seconds(), slices.Max(all).Seconds())
}
