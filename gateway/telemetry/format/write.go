// Package format is telemetry as other programs write and read it: CSV, NDJSON, and the
// text of Prometheus and OpenMetrics. What one of them has written it also reads. Answers
// are written as they are found, and read as they come, so that a year of readings takes no
// more memory than a page of them.
package format

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
	"halo.internal/model/order"
)

// Format is one of them.
type Format string

// Formats.
const (
	CSV         Format = "csv"
	NDJSON      Format = "ndjson"
	Prometheus  Format = "prometheus"  // text format 0.0.4, times in milliseconds
	OpenMetrics Format = "openmetrics" // 1.0.0, times in seconds: promtool makes blocks of it
)

// ContentType is the format's media type.
func (f Format) ContentType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8; header=present"
	case NDJSON:
		return "application/x-ndjson"
	case OpenMetrics:
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

const page = 5000 // samples that are held at a time

// Source is what readings are taken from; telemetry.Store is one.
type Source interface {
	Samples(ctx context.Context, q telemetry.SampleQuery) (apitype.SampleList, error)
	Metrics(ctx context.Context, from, to time.Time, wanted []string) ([]apitype.Metric, error)
}

// Selection is what is exported: the readings of some nodes as they were made.
type Selection struct {
	Nodes    []string          // canonical IDs
	Names    map[string]string // of nodes, for labels
	Metrics  []string          // metrics' names, or their beginnings followed by *; none: all
	From, To time.Time         // both included
}

// Write writes what is selected in a format.
func Write(ctx context.Context, w io.Writer, f Format, from Source, sel Selection) error {
	switch f {
	case CSV:
		return writeCSV(ctx, w, from, sel)
	case NDJSON:
		return writeNDJSON(ctx, w, from, sel)
	case Prometheus, OpenMetrics:
		return writeText(ctx, w, f, from, sel)
	}
	return fmt.Errorf("expected a format csv, ndjson, prometheus or openmetrics, got %q", f)
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

var columns = []string{"time", "node", "metric", "unit", "value"}

// writeCSV writes a line for each reading, after one that names the columns.
func writeCSV(ctx context.Context, w io.Writer, from Source, sel Selection) error {
	c := csv.NewWriter(w)
	if err := c.Write(columns); err != nil {
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

// writeNDJSON writes an object on a line of its own for each reading.
func writeNDJSON(ctx context.Context, w io.Writer, from Source, sel Selection) error {
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

// Quote returns the value of a label.
func Quote(s string) string { return `"` + escaper.Replace(s) + `"` }

func labels(node, name, metric, thing, unit string) string {
	text := "{node=" + Quote(node) + ",name=" + Quote(name) + ",metric=" + Quote(metric) + ",thing=" + Quote(thing)
	if unit != "" {
		text += ",unit=" + Quote(unit)
	}
	return text + "}"
}

// Latest writes latest values in Prometheus' text format 0.0.4, those older than the
// limit left out: what a node measured before it fell silent is not how it is. names gives
// the nodes' names, and now is what age is measured by.
func Latest(w io.Writer, readings []apitype.Reading, names map[string]string, now time.Time, limit time.Duration) error {
	readings = slices.Clone(readings)
	order.By(readings, func(a, b apitype.Reading) int {
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

// writeText writes readings with their times. Both texts want all of a name together: so
// each metric is read by itself.
func writeText(ctx context.Context, w io.Writer, f Format, from Source, sel Selection) error {
	metrics, err := from.Metrics(ctx, sel.From, sel.To, sel.Metrics)
	if err != nil {
		return err
	}
	var list []string
	for _, m := range metrics {
		list = append(list, m.Metric)
	}
	order.By(list, func(a, b string) int {
		x, _ := family(a)
		y, _ := family(b)
		return cmp.Or(strings.Compare(x, y), strings.Compare(a, b))
	})
	kind := "untyped"
	if f == OpenMetrics {
		kind = "unknown"
	}
	b, before := bufio.NewWriter(w), ""
	for _, metric := range slices.Compact(list) {
		name, thing := family(metric)
		one := sel
		one.Metrics = []string{metric}
		if err := each(ctx, from, one, func(node string, s apitype.Sample) error {
			if name != before {
				fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
				before = name
			}
			at := strconv.FormatInt(s.Time.UnixMilli(), 10)
			if f == OpenMetrics {
				at = strconv.FormatFloat(float64(s.Time.UnixMilli())/1000, 'f', 3, 64)
			}
			_, err := fmt.Fprintf(b, "%s%s %s %s\n", name, labels(node, sel.Names[node], s.Metric, thing, s.Unit), number(s.Value), at)
			return err
		}); err != nil {
			return err
		}
	}
	if f == OpenMetrics {
		if _, err := b.WriteString(end + "\n"); err != nil {
			return err
		}
	}
	return b.Flush()
}

// end is the last line of OpenMetrics' text.
const end = "# EOF"
