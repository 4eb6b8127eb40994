package ctl

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"strings"

	"halo.internal/ctl/table"
	"halo.internal/model"
)

const timelineLong = `Timeline shows how each recovery went: from the start of the machine, or from
where the chain from the radio to the gateway broke, until the gateway had
acknowledged readings again. Each column of a stage is how many seconds after the
beginning it was there to stay; "-" was there all the time, or is not there yet.

What broke, and what was done about it (peers sought, a radio restarted, a driver
reloaded), is listed below.`

func (a *app) meshTimeline(ctx context.Context, from air, _ []string) error {
	list, err := from.Timeline(ctx)
	if err != nil {
		return err
	}
	return a.show(items[model.Recovery]{list}, func(w io.Writer) error { return writeTimeline(w, list) })
}

func writeTimeline(w io.Writer, list []model.Recovery) error {
	heading := []string{"NO", "BEGAN", "BOOT", "CAUSE", "TOOK"}
	for _, s := range model.RecoveryStages {
		heading = append(heading, strings.ToUpper(string(s)))
	}
	t, steps, n := table.New(heading...), table.New("NO", "AFTER", "WHAT", "DETAIL"), 0
	for i, c := range slices.Backward(list) { // the newest first
		no := strconv.Itoa(i + 1)
		row := []any{no, c.Began, c.Boot, causeOf(c), tookOf(c)}
		for _, s := range model.RecoveryStages {
			var at table.Cell
			if k := slices.IndexFunc(c.Stages, func(m model.RecoveryMark) bool { return m.Name == string(s) }); k >= 0 {
				at = seconds(c.Stages[k].MS)
			}
			row = append(row, at)
		}
		t.Row(row...)
		if c.Cause == model.CauseBroken {
			n++
			steps.Row(no, seconds(0), c.Check+" broke", c.Detail)
		}
		for _, s := range c.Steps {
			n++
			steps.Row(no, seconds(s.MS), s.Name, s.Detail)
		}
	}
	return writeTables(w, []section{{1, t}, {n, steps}})
}

func causeOf(c model.Recovery) string {
	if c.Cause != model.CauseBroken {
		return string(c.Cause)
	}
	return c.Check + " broke"
}

func tookOf(c model.Recovery) table.Cell {
	switch c.State {
	case model.RecoveryOver:
		return seconds(c.TotalMS)
	case model.RecoveryCut:
		return table.Two("cut: the machine went off", "")
	}
	return table.Two("waits for "+cmp.Or(c.Missing, "readings to be acknowledged"), "")
}

// seconds writes milliseconds as a duration that compares at a glance.
func seconds(ms int64) table.Cell { return table.In("s", "%.1f", float64(ms)/1000) }
