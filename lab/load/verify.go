package load

import (
	"context"
	"encoding/json"
	"time"

	"halo.internal/model/apitype"
)

// heard notes of which batches the gateway has told.
func (r *run) heard(m apitype.LiveMessage, at time.Time) {
	for _, item := range m.Items {
		var of struct {
			Node string `json:"node"`
			Seq  uint64 `json:"seq"`
		}
		if err := json.Unmarshal(item, &of); err != nil {
			r.meter.failed("live", err)
			continue
		}
		if p := r.byID[of.Node]; p != nil {
			p.told(of.Seq, at)
		}
	}
}

// Found is what became of samples that were acknowledged.
type Found struct {
	Expected int `json:"expected"`
	Missing  int `json:"missing"`
	Wrong    int `json:"wrong"` // they have another value
}

// instantOf are the samples of one instant, by the place of their metric.
type instantOf struct {
	values []float64
	found  []bool
}

// verify looks whether all samples of a device that were acknowledged are there as they were
// made. What is in them is made again.
func (r *run) verify(ctx context.Context, p *player) (f Found, err error) {
	wanted, first, last := map[int64]*instantOf{}, int64(0), int64(0)
	now, past := newBoards(r.schema, p.now.seed), newBoards(r.schema, p.past.seed)
	for _, s := range p.made() {
		from := now
		if s.late {
			from = past
		}
		w := from.batch(p.Boot, s)
		if !s.acked {
			continue
		}
		for _, report := range w.Reports {
			of := &instantOf{make([]float64, len(r.schema.Metrics)), make([]bool, len(r.schema.Metrics))}
			for i, m := range r.schema.Metrics {
				of.values[i] = m.Number(report.Values[i])
			}
			if len(wanted) == 0 {
				first, last = report.Time, report.Time
			}
			wanted[report.Time], first, last = of, min(first, report.Time), max(last, report.Time)
		}
	}
	f.Expected = len(wanted) * len(r.schema.Metrics)
	if f.Expected == 0 {
		return f, nil
	}
	place := map[string]int{}
	for i, m := range r.schema.Metrics {
		place[m.Name] = i
	}
	found := 0
	for cursor := ""; ; {
		page, err := r.admin.Samples(ctx, p.ID(), time.UnixMilli(first), time.UnixMilli(last+1), cursor)
		if err != nil {
			return f, err
		}
		for _, s := range page.Items {
			of := wanted[s.Time.UnixMilli()]
			i, known := place[s.Metric]
			if of == nil || !known || of.found[i] {
				continue // it was not acknowledged, or is one too many
			}
			of.found[i] = true
			found++
			if s.Value != of.values[i] {
				f.Wrong++
			}
		}
		if cursor = page.Next; cursor == "" {
			f.Missing = f.Expected - found
			return f, nil
		}
	}
}
