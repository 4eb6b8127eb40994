package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) telemetryCommand() *cobra.Command {
	var metric string
	var watch bool
	var interval time.Duration
	latest := a.ofNode("latest [NODE]", "latest readings of one node or all", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		node := strings.Join(args, "")
		if watch {
			return a.watchTelemetry(ctx, c, node, metric, interval)
		}
		readings, names, err := a.latest(ctx, c, node, metric)
		if err != nil {
			return err
		}
		return a.show(items[apitype.Reading]{readings}, func(w io.Writer) error {
			return readingTable(readings, names, c.Now(), true).Write(w)
		})
	})
	latest.Aliases = []string{"show"}
	latest.Flags().StringVar(&metric, "metric", "", "only metrics that begin with `prefix`, such as system.cpu")
	latest.Flags().BoolVar(&watch, "watch", false, "go on and print what is new")
	intervalFlag(latest, &interval, "readings")
	return group("telemetry", "readings of the nodes", latest,
		a.telemetryRange(), a.telemetrySamples(), a.telemetryMarks(), a.telemetryMetrics(), a.telemetryExport(), a.telemetryImport(),
		a.ofNode("coverage NODE", "which batches of a node the gateway has, per boot", cobra.ExactArgs(1), a.telemetryCoverage))
}

func (a *app) latest(ctx context.Context, c *client.Client, node, metric string) ([]apitype.Reading, map[string]string, error) {
	readings, err := c.Telemetry(ctx, node, metric)
	if err != nil {
		return nil, nil, notFound(err, "haloctl node list shows the nodes")
	}
	names, err := a.nodeNames(ctx, c)
	return readings, names, err
}

// nameOf falls back to the ID for a node that is not listed.
func nameOf(names map[string]string, id string) string {
	if n := names[id]; n != "" {
		return n
	}
	return id
}

// readingTable shows latest readings, under a heading where these are the first.
func readingTable(readings []apitype.Reading, names map[string]string, now time.Time, first bool) *table.Table {
	t := table.New().Wide(6)
	if first {
		t = table.New("NODE", "METRIC", "VALUE", "UNIT", "TIME", "CLOCK", "BOOT", "SEQ").Wide(6)
	}
	for _, r := range readings {
		t.Row(nameOf(names, r.Node), r.Metric, table.Value(r.Value), r.Unit, table.Age(now, r.Time), r.Clock, r.Boot, r.Seq)
	}
	return t
}

// watchTelemetry prints all readings, and then, until it is interrupted, those
// that are new: as tables for people, one JSON object a line for programs.
func (a *app) watchTelemetry(ctx context.Context, c *client.Client, node, metric string, interval time.Duration) error {
	names, first := liveNames{app: a, c: c}, true
	want := apitype.LiveRequest{Topic: apitype.TopicTelemetry, Metrics: prefixes(metric)}
	if node != "" {
		want.Nodes = []string{node}
	}
	err := a.follow(ctx, c, interval, []apitype.LiveRequest{want}, func(m apitype.LiveMessage) error {
		groups, err := decode[apitype.LiveReadings](m)
		if err != nil || len(groups) == 0 {
			return err
		}
		news := readings(groups)
		if a.json {
			return lines(a.env.Stdout, news)
		}
		var ids []string
		for _, g := range groups {
			ids = append(ids, g.Node)
		}
		known, err := names.of(ctx, ids...)
		if err != nil {
			return err
		}
		defer func() { first = false }()
		return readingTable(news, known, c.Now(), first).Write(a.page())
	})
	return notFound(err, "haloctl node list shows the nodes")
}

// lines prints one JSON object a line.
func lines[T any](w io.Writer, list []T) error {
	e := json.NewEncoder(w)
	for _, v := range list {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// minInterval keeps an impatient person from filling a slow mesh.
const minInterval = 200 * time.Millisecond

// every calls step at once and then at each interval until ctx ends, which is
// how such a command is meant to end.
func every(ctx context.Context, interval time.Duration, step func() error) error {
	t := time.NewTicker(max(interval, minInterval))
	defer t.Stop()
	for {
		if err := step(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (a *app) telemetryCoverage(ctx context.Context, c *client.Client, args []string) error {
	cov, err := c.Coverage(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(cov, func(w io.Writer) error {
		t := table.New("BOOT", "FIRST", "LAST", "BATCHES", "MISSING", "DROPPED")
		for _, b := range cov.Boots {
			missing := make([]string, len(b.Missing))
			for i, m := range b.Missing {
				missing[i] = fmt.Sprintf("%d-%d", m.From, m.To)
			}
			text := strings.Join(missing, " ")
			if text == "" {
				text = "none"
			}
			t.Row(fmt.Sprint(b.Boot), fmt.Sprint(b.First), fmt.Sprint(b.Last), fmt.Sprint(b.Count), text, fmt.Sprint(b.Dropped))
		}
		return t.Write(w)
	})
}
