// Package export writes telemetry in formats that other programs read: CSV, NDJSON, and
// the text of Prometheus and OpenMetrics. Answers are written as they are read, so that a
// year of readings takes no more memory than a page of them.
package export

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"halo.internal/gateway/telemetry"
	"halo.internal/model/apitype"
)

const page = 5000 // samples that are held at a time

// Source is what readings are taken from; telemetry.Store is one.
type Source interface {
	Samples(ctx context.Context, q telemetry.SampleQuery) (apitype.SampleList, error)
}

// Selection is what is exported: the readings of some nodes as they were made.
type Selection struct {
	Nodes    []string  // canonical IDs
	Metrics  []string  // names, or their beginnings followed by *; none: all
	From, To time.Time // both included
}

// each calls f with every reading, by node and then by time.
func each(ctx context.Context, from Source, sel Selection, f func(node string, s apitype.Sample) error) error {
	for _, node := range sel.Nodes {
		q := telemetry.SampleQuery{Node: node, From: sel.From, To: sel.To, Metrics: sel.Metrics, Limit: page}
		for {
			list, err := from.Samples(ctx, q)
			if err != nil {
				return err
			}
			for _, s := range list.Items {
				if err := f(node, s); err != nil {
					return err
				}
			}
			if q.Cursor = list.Next; q.Cursor == "" {
				break
			}
		}
	}
	return nil
}

// stamp is RFC 3339 with milliseconds, which is as exact as readings are.
const stamp = "2006-01-02T15:04:05.000Z07:00"

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// CSV writes a line of time, node, metric, unit and value for each reading, after one that
// names them.
func CSV(ctx context.Context, w io.Writer, from Source, sel Selection) error {
	c := csv.NewWriter(w)
	if err := c.Write([]string{"time", "node", "metric", "unit", "value"}); err != nil {
		return err
	}
	if err := each(ctx, from, sel, func(node string, s apitype.Sample) error {
		return c.Write([]string{s.Time.UTC().Format(stamp), node, s.Metric, s.Unit, number(s.Value)})
	}); err != nil {
		return err
	}
	c.Flush()
	return c.Error()
}

// line is a reading as NDJSON has it.
type line struct {
	Time   string  `json:"time"`
	Node   string  `json:"node"`
	Metric string  `json:"metric"`
	Unit   string  `json:"unit,omitempty"`
	Value  float64 `json:"value"`
}

// NDJSON writes an object on a line of its own for each reading.
func NDJSON(ctx context.Context, w io.Writer, from Source, sel Selection) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := each(ctx, from, sel, func(node string, s apitype.Sample) error {
		return e.Encode(line{s.Time.UTC().Format(stamp), node, s.Metric, s.Unit, s.Value})
	}); err != nil {
		return err
	}
	return b.Flush()
}

// family is the name under which Prometheus has a metric: its source and what it measures;
// what that was measured of is a label, so that one query has it of all things alike.
func family(metric string) (name, thing string) {
	parts := strings.SplitN(metric, ".", 3)
	if len(parts) != 3 {
		return "halo_" + clean(metric), ""
	}
	return "halo_" + clean(parts[0]) + "_" + clean(parts[2]), parts[1]
}

// clean makes a text one that may be part of a name: HALO's have "-" beside what may be.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func labels(node, name, metric, thing, unit string) string {
	text := fmt.Sprintf(`{node="%s",name="%s",metric="%s",thing="%s"`, escaper.Replace(node), escaper.Replace(name), escaper.Replace(metric), escaper.Replace(thing))
	if unit != "" {
		text += fmt.Sprintf(`,unit="%s"`, escaper.Replace(unit))
	}
	return text + "}"
}

// Prometheus writes latest values in Prometheus' text format 0.0.4, those older than the
// limit left out: what a node measured before it fell silent is not how it is. names gives
// the nodes' names, and now is what age is measured by.
func Prometheus(w io.Writer, readings []apitype.Reading, names map[string]string, now time.Time, limit time.Duration) error {
	readings = slices.Clone(readings)
	slices.SortStableFunc(readings, func(a, b apitype.Reading) int {
		x, _ := family(a.Metric)
		y, _ := family(b.Metric)
		return strings.Compare(x, y)
	})
	b, before := bufio.NewWriter(w), ""
	for _, r := range readings {
		if now.Sub(r.Time) > limit {
			continue
		}
		name, thing := family(r.Metric)
		if name != before {
			fmt.Fprintf(b, "# TYPE %s untyped\n", name)
			before = name
		}
		fmt.Fprintf(b, "%s%s %s\n", name, labels(r.Node, names[r.Node], r.Metric, thing, r.Unit), number(r.Value))
	}
	return b.Flush()
}

// OpenMetrics writes readings with their times, as promtool creates blocks from. The format
// wants all of a name together: metrics names those that there are, and each is read by
// itself.
func OpenMetrics(ctx context.Context, w io.Writer, from Source, sel Selection, metrics []string, names map[string]string) error {
	metrics = slices.Clone(metrics)
	slices.SortStableFunc(metrics, func(a, b string) int {
		x, _ := family(a)
		y, _ := family(b)
		return cmp.Or(strings.Compare(x, y), strings.Compare(a, b))
	})
	b, before := bufio.NewWriter(w), ""
	for _, metric := range slices.Compact(metrics) {
		name, thing := family(metric)
		one := sel
		one.Metrics = []string{metric}
		if err := each(ctx, from, one, func(node string, s apitype.Sample) error {
			if name != before {
				fmt.Fprintf(b, "# TYPE %s unknown\n", name)
				before = name
			}
			_, err := fmt.Fprintf(b, "%s%s %s %s\n", name, labels(node, names[node], s.Metric, thing, s.Unit), number(s.Value), strconv.FormatFloat(float64(s.Time.UnixMilli())/1000, 'f', 3, 64))
			return err
		}); err != nil {
			return err
		}
	}
	if _, err := b.WriteString("# EOF\n"); err != nil {
		return err
	}
	return b.Flush()
}
