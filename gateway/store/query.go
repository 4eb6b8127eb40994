package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

const maxMissing = 1000 // ranges listed for one boot

// Coverage returns which batches of a node are stored.
func (j *Journal) Coverage(ctx context.Context, node string) (apitype.Coverage, error) {
	c := apitype.Coverage{Node: node, Boots: []apitype.BootCoverage{}}
	through, err := j.dropped(ctx, node, &c)
	if err != nil {
		return c, err
	}
	rows, err := j.db.read.QueryContext(ctx, `SELECT boot, seq FROM batches WHERE source = (SELECT id FROM sources WHERE node = ?) ORDER BY boot, seq`, node)
	if err != nil {
		return c, classify(err)
	}
	defer rows.Close()
	var b *apitype.BootCoverage
	var next uint64 // the lowest number not accounted for
	for rows.Next() {
		var boot, seq uint64
		if err := rows.Scan(&boot, &seq); err != nil {
			return c, classify(err)
		}
		if b == nil || b.Boot != boot {
			b = bootOf(&c, boot)
			b.First = seq
			next = through[boot] + 1
		}
		if seq > next && len(b.Missing) < maxMissing {
			b.Missing = append(b.Missing, apitype.SeqRange{From: next, To: seq - 1})
		}
		next = max(next, seq+1)
		b.Last = seq
		b.Count++
	}
	slices.SortFunc(c.Boots, func(a, b apitype.BootCoverage) int { return cmp.Compare(a.Boot, b.Boot) })
	return c, classify(rows.Err())
}

// dropped adds the boots of which something was dropped for space.
func (j *Journal) dropped(ctx context.Context, node string, c *apitype.Coverage) (map[uint64]uint64, error) {
	rows, err := j.db.read.QueryContext(ctx, `SELECT boot, through, count FROM dropped WHERE source = (SELECT id FROM sources WHERE node = ?) ORDER BY boot`, node)
	if err != nil {
		return nil, classify(err)
	}
	defer rows.Close()
	through := map[uint64]uint64{}
	for rows.Next() {
		var boot, upTo, n uint64
		if err := rows.Scan(&boot, &upTo, &n); err != nil {
			return nil, classify(err)
		}
		through[boot] = upTo
		bootOf(c, boot).Dropped = n
	}
	return through, classify(rows.Err())
}

func bootOf(c *apitype.Coverage, boot uint64) *apitype.BootCoverage {
	for i := range c.Boots {
		if c.Boots[i].Boot == boot {
			return &c.Boots[i]
		}
	}
	c.Boots = append(c.Boots, apitype.BootCoverage{Boot: boot, Missing: []apitype.SeqRange{}})
	return &c.Boots[len(c.Boots)-1]
}

// RangeQuery selects samples of one node.
type RangeQuery struct {
	Node     string
	From, To time.Time
	Prefix   string // of the metric
	Cursor   string
	Limit    int // samples; a page ends with the batch that reaches it
}

// Range reads samples from the journal, in the order of boot and sequence
// number, and the cursor of the next page, or "".
func (j *Journal) Range(ctx context.Context, q RangeQuery) (apitype.SampleList, error) {
	list := apitype.SampleList{Node: q.Node, Items: []apitype.Sample{}}
	var boot, seq int64
	if q.Cursor != "" {
		if _, err := fmt.Sscanf(q.Cursor, "%d.%d", &boot, &seq); err != nil {
			return list, apitype.Refuse(http.StatusBadRequest, "", "cursor: expected the value of \"next\" of an earlier page")
		}
	}
	rows, err := j.db.read.QueryContext(ctx, `SELECT boot, seq, body FROM batches
		WHERE source = (SELECT id FROM sources WHERE node = ?) AND (boot, seq) > (?, ?) AND last_ms >= ? AND first_ms <= ? ORDER BY boot, seq`,
		q.Node, boot, seq, Millis(q.From), Millis(q.To))
	if err != nil {
		return list, classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		if len(list.Items) >= q.Limit {
			list.Next = fmt.Sprintf("%d.%d", boot, seq)
			break
		}
		var body []byte
		if err := rows.Scan(&boot, &seq, &body); err != nil {
			return list, classify(err)
		}
		if list.Items, err = j.samples(ctx, list.Items, body, q); err != nil {
			return list, err
		}
	}
	return list, classify(rows.Err())
}

func (j *Journal) samples(ctx context.Context, to []apitype.Sample, body []byte, q RangeQuery) ([]apitype.Sample, error) {
	b, s, err := j.decode(ctx, body)
	if err != nil {
		return to, err
	}
	for _, r := range b.Reports {
		if r.Time < Millis(q.From) || r.Time > Millis(q.To) {
			continue
		}
		for k, m := range s.Metrics {
			if v, ok := finite(m, r.Values[k]); ok && strings.HasPrefix(m.Name, q.Prefix) {
				to = append(to, apitype.Sample{Time: r.At(), Metric: m.Name, Unit: m.Unit, Value: v})
			}
		}
	}
	return to, nil
}

func (j *Journal) decode(ctx context.Context, body []byte) (wire.Batch, wire.Schema, error) {
	h, err := wire.DecodeHeader(body)
	if err != nil {
		return wire.Batch{}, wire.Schema{}, fmt.Errorf("stored batch: %w", err)
	}
	s, err := j.Schema(ctx, h.Schema)
	if err != nil {
		return wire.Batch{}, s, fmt.Errorf("stored batch %v: schema %v: %w", h.BatchID, h.Schema, err)
	}
	b, err := wire.Decode(body, s)
	return b, s, err
}

// finite returns a value that JSON can carry.
func finite(m wire.Metric, v wire.Value) (float64, bool) {
	f := m.Number(v)
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

// newest calls f with the newest batches of a node, newest first.
func (j *Journal) newest(ctx context.Context, node string, n int, f func(wire.Batch, wire.Schema)) error {
	rows, err := j.db.read.QueryContext(ctx, `SELECT body FROM batches WHERE source = (SELECT id FROM sources WHERE node = ?) ORDER BY boot DESC, seq DESC LIMIT ?`, node, n)
	if err != nil {
		return classify(err)
	}
	defer rows.Close()
	var errs []error
	for rows.Next() {
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return classify(err)
		}
		b, s, err := j.decode(ctx, append([]byte(nil), body...))
		if err != nil {
			errs = append(errs, err) // one that rotted must not hide the others
			continue
		}
		f(b, s)
	}
	return errors.Join(append(errs, classify(rows.Err()))...)
}
