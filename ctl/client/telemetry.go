package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"halo.internal/model/apitype"
)

// Selection chooses readings; what is empty chooses all.
type Selection struct {
	Nodes    []string // names or canonical IDs
	Metrics  []string // names, or their beginnings followed by *
	From, To time.Time
}

func (s Selection) query() url.Values {
	q := url.Values{}
	for _, n := range s.Nodes {
		q.Add("node", n)
	}
	for _, m := range s.Metrics {
		q.Add("metric", m)
	}
	s.span(q)
	return q
}

func (s Selection) span(q url.Values) {
	if !s.From.IsZero() {
		q.Set("from", s.From.UTC().Format(time.RFC3339Nano))
	}
	if !s.To.IsZero() {
		q.Set("to", s.To.UTC().Format(time.RFC3339Nano))
	}
}

// RangeQuery says how readings are put together.
type RangeQuery struct {
	Selection
	Step   time.Duration // zero: the narrowest usual one that makes at most Points
	Points int
	Func   string
	Across string
}

// Range returns series, and the width of their buckets.
func (c *Client) Range(ctx context.Context, r RangeQuery) (apitype.SeriesList, error) {
	q := r.query()
	if r.Step > 0 {
		q.Set("step_s", strconv.FormatFloat(r.Step.Seconds(), 'f', -1, 64))
	}
	if r.Points > 0 {
		q.Set("points", strconv.Itoa(r.Points))
	}
	for name, v := range map[string]string{"func": r.Func, "across": r.Across} {
		if v != "" {
			q.Set(name, v)
		}
	}
	var list apitype.SeriesList
	items, err := all(func(cursor string) ([]apitype.Series, string, error) {
		l, err := get[apitype.SeriesList](ctx, c, "/v1/telemetry/range", page(q, cursor))
		list.StepS = l.StepS
		return l.Items, l.Next, err
	})
	list.Items = items
	return list, err
}

// Samples returns a node's readings of metrics that begin with prefix as it made them, the
// oldest first, up to limit; more tells whether there are others after them.
func (c *Client) Samples(ctx context.Context, node, prefix string, from, to time.Time, limit int) (list []apitype.Sample, more bool, err error) {
	q := filter(map[string]string{"metric": prefix})
	Selection{From: from, To: to}.span(q)
	list = []apitype.Sample{}
	for range maxPages {
		q.Set("limit", strconv.Itoa(min(samplePage, limit-len(list))))
		l, err := get[apitype.SampleList](ctx, c, nodePath(node)+"/telemetry/range", q)
		if err != nil {
			return nil, false, err
		}
		list = append(list, l.Items...)
		if l.Next == "" || len(list) >= limit {
			return list[:min(limit, len(list))], l.Next != "" || len(list) > limit, nil
		}
		q.Set("cursor", l.Next)
	}
	return nil, false, fmt.Errorf("samples: more than %d pages", maxPages)
}

// samplePage is how many samples are asked for at once: 800 KiB of JSON.
const samplePage = 10_000

// Marks returns what is to be said of a node's readings.
func (c *Client) Marks(ctx context.Context, node string, from, to time.Time) ([]apitype.Mark, error) {
	q := url.Values{}
	Selection{From: from, To: to}.span(q)
	return all(func(cursor string) ([]apitype.Mark, string, error) {
		l, err := get[apitype.MarkList](ctx, c, nodePath(node)+"/telemetry/marks", page(q, cursor))
		return l.Items, l.Next, err
	})
}

// Metrics lists the metrics of which there may be readings.
func (c *Client) Metrics(ctx context.Context, prefix string, from, to time.Time) ([]apitype.Metric, error) {
	q := filter(map[string]string{"metric": prefix})
	Selection{From: from, To: to}.span(q)
	return all(func(cursor string) ([]apitype.Metric, string, error) {
		l, err := get[apitype.MetricList](ctx, c, "/v1/telemetry/metrics", page(q, cursor))
		return l.Items, l.Next, err
	})
}

// Export writes readings to w. An error may come after a part of them.
func (c *Client) Export(ctx context.Context, s Selection, format string, w io.Writer) error {
	q := s.query()
	q.Set("format", format)
	return c.call(ctx, request{method: http.MethodGet, path: "/v1/telemetry/export", query: q}, w)
}

// Import has the gateway take in readings.
func (c *Client) Import(ctx context.Context, format string, file []byte) (apitype.Import, error) {
	var answer apitype.Import
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/telemetry/import", query: url.Values{"format": {format}}, file: file}, &answer)
	return answer, err
}

// Settings returns what people have set of the gateway.
func (c *Client) Settings(ctx context.Context) (apitype.Settings, error) {
	return get[apitype.Settings](ctx, c, "/v1/settings", nil)
}

// UpdateSettings changes settings, those that are named, and returns all.
func (c *Client) UpdateSettings(ctx context.Context, u apitype.UpdateSettings) (apitype.Settings, error) {
	var answer apitype.Settings
	err := c.call(ctx, request{method: http.MethodPatch, path: "/v1/settings", body: u}, &answer)
	return answer, err
}
