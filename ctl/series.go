package ctl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

// spanFlags chooses a time.
type spanFlags struct{ from, to string }

func (s *spanFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&s.from, "from", "1h", "`time` of the first reading: how long ago, such as 30m, 24h or 7d, or a date, 2026-11-20 or 2026-11-20T12:00:00Z")
	c.Flags().StringVar(&s.to, "to", "", "`time` of the last one, likewise (default: now)")
}

// span reads the flags; now is the gateway's time.
func (s *spanFlags) span(now time.Time) (from, to time.Time, err error) {
	if from, err = moment(now, s.from); err != nil {
		return from, to, &usageError{fmt.Errorf("--from: %w", err)}
	}
	if s.to != "" {
		if to, err = moment(now, s.to); err != nil {
			return from, to, &usageError{fmt.Errorf("--to: %w", err)}
		}
	}
	return from, to, nil
}

// gatewayNow is the time on the gateway's clock, for which it is asked where it has not
// told yet: boards and laptops may be years apart.
func gatewayNow(ctx context.Context, c *client.Client) (time.Time, error) {
	_, err := c.Health(ctx)
	return c.Now().UTC().Truncate(time.Second), err
}

// selectionFlags chooses readings.
type selectionFlags struct {
	spanFlags
	metrics []string
}

func (s *selectionFlags) add(c *cobra.Command) {
	s.spanFlags.add(c)
	c.Flags().StringArrayVar(&s.metrics, "metric", nil, "only this `metric`, or those that begin so, such as 'system.cpu.*'; may be given again")
}

func (s *selectionFlags) selection(ctx context.Context, c *client.Client, nodes []string) (sel client.Selection, err error) {
	now, err := gatewayNow(ctx, c)
	if err != nil {
		return sel, err
	}
	sel.Nodes, sel.Metrics = nodes, s.metrics
	sel.From, sel.To, err = s.span(now)
	return sel, err
}

func (a *app) telemetryRange() *cobra.Command {
	var sel selectionFlags
	var q client.RangeQuery
	var step string
	c := a.ofNode("range [NODE…]", "readings over a time, put together in buckets", cobra.ArbitraryArgs, func(ctx context.Context, c *client.Client, args []string) (err error) {
		if step != "" {
			if q.Step, err = span(step); err != nil {
				return &usageError{fmt.Errorf("--step: %w", err)}
			}
		}
		if q.Selection, err = sel.selection(ctx, c, args); err != nil {
			return err
		}
		list, err := c.Range(ctx, q)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(list, func(w io.Writer) error { return a.writeSeries(w, list, names) })
	})
	c.Long = `Range shows what metrics were over a time: of each bucket how many readings there
were, the least, mean and greatest of them, so that no peak is lost however wide
it is, and the value that --func makes of them. With --across, the nodes' series
of one metric become one.`
	c.Example = `  haloctl telemetry range n01 --metric system.cpu.used_percent --from 24h
  haloctl telemetry range --metric 'net.wg0.*_bytes' --func rate --across sum --step 5m -o csv`
	sel.add(c)
	f := c.Flags()
	f.StringVar(&step, "step", "", "`width` of a bucket, such as 10s, 15m or 1d (default: the narrowest usual one that makes --points)")
	f.IntVar(&q.Points, "points", 60, "`number` of buckets at most, without --step")
	f.StringVar(&q.Func, "func", "mean", "`function`: mean, min, max, sum, count, first, last, or rate of a counter per second")
	f.StringVar(&q.Across, "across", "", "put nodes together by `function` sum, mean, min, max or count")
	return c
}

func (a *app) writeSeries(w io.Writer, list apitype.SeriesList, names map[string]string) error {
	of := func(s apitype.Series) string {
		if s.Node == "" {
			return "all"
		}
		return nameOf(names, s.Node)
	}
	t := table.New("TIME", "NODE", "METRIC", "VALUE", "UNIT", "COUNT", "MIN", "MEAN", "MAX", "FIRST", "LAST").Wide(9)
	for _, s := range list.Items {
		for _, p := range s.Points {
			t.Row(p.Time, of(s), s.Metric, table.Value(p.Value), s.Unit, p.Count, table.Value(p.Min), table.Value(p.Mean), table.Value(p.Max), table.Value(p.First), table.Value(p.Last))
		}
	}
	return t.Write(w)
}

func (a *app) telemetrySamples() *cobra.Command {
	var s spanFlags
	var prefix string
	var limit int
	c := a.ofNode("samples NODE", "a node's readings as it made them, oldest first", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		now, err := gatewayNow(ctx, c)
		if err != nil {
			return err
		}
		from, to, err := s.span(now)
		if err != nil {
			return err
		}
		list, more, err := c.Samples(ctx, args[0], prefix, from, to, limit)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		err = a.show(items[apitype.Sample]{list}, func(w io.Writer) error {
			t := table.New("TIME", "METRIC", "VALUE", "UNIT")
			for _, r := range list {
				t.Row(r.Time, r.Metric, table.Value(r.Value), r.Unit)
			}
			return t.Write(w)
		})
		if err == nil && more {
			fmt.Fprintln(a.env.Stderr, "haloctl: there is more: --limit, a later --from, or haloctl telemetry export")
		}
		return err
	})
	s.add(c)
	c.Flags().StringVar(&prefix, "metric", "", "only metrics that begin with `prefix`, such as system.cpu")
	c.Flags().IntVar(&limit, "limit", 1000, "how many at most")
	return c
}

func (a *app) telemetryMarks() *cobra.Command {
	var s spanFlags
	c := a.ofNode("marks NODE", "a node's starts, corrections of its clock, and gaps in what came", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		now, err := gatewayNow(ctx, c)
		if err != nil {
			return err
		}
		from, to, err := s.span(now)
		if err != nil {
			return err
		}
		marks, err := c.Marks(ctx, args[0], from, to)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		return a.show(items[apitype.Mark]{marks}, func(w io.Writer) error {
			t := table.New("TIME", "KIND", "BOOT", "UNTIL", "DETAIL")
			for _, m := range marks {
				var until table.Cell
				if m.Until != nil {
					until = table.Time(*m.Until)
				}
				t.Row(m.Time, m.Kind, m.Boot, until, m.Detail)
			}
			return t.Write(w)
		})
	})
	s.add(c)
	return c
}

func (a *app) telemetryMetrics() *cobra.Command {
	var s spanFlags
	var prefix string
	c := a.call("metrics", "metrics of which there may be readings", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		now, err := gatewayNow(ctx, c)
		if err != nil {
			return err
		}
		from, to, err := s.span(now)
		if err != nil {
			return err
		}
		metrics, err := c.Metrics(ctx, prefix, from, to)
		if err != nil {
			return err
		}
		return a.show(items[apitype.Metric]{metrics}, func(w io.Writer) error {
			t := table.New("METRIC", "UNIT")
			for _, m := range metrics {
				t.Row(m.Metric, m.Unit)
			}
			return t.Write(w)
		})
	})
	s.add(c)
	c.Flags().StringVar(&prefix, "metric", "", "only metrics that begin with `prefix`, such as system.cpu")
	return c
}
