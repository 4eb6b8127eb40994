package telemetry

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
)

// Kinds of marks.
const (
	MarkBoot  = "boot"  // a node started
	MarkClock = "clock" // its clock was put right
	MarkGap   = "gap"   // batches that it made never came
)

// clockLeap is how much later than the batch before one is stamped whose clock is of
// another quality, to be taken for a clock that was put forward: batches follow each other
// within minutes.
const clockLeap = 5 * time.Minute

// Mark is something that a node's readings alone do not tell.
type Mark struct {
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero" doc:"of a gap: the first reading after it"`
	Kind   string    `json:"kind"`
	Boot   uint64    `json:"boot"`
	Detail string    `json:"detail,omitempty"`
}

// mark is one as a week file has it.
type mark struct {
	at, until    int64
	kind         string
	boot         uint64
	seq, through uint64 // of a gap: the numbers; of a clock: the batch
	detail       string
}

func (m mark) public() Mark {
	p := Mark{At: time.UnixMilli(m.at).UTC(), Kind: m.kind, Boot: m.boot, Detail: m.detail}
	if m.kind == MarkGap {
		p.Until = time.UnixMilli(m.until).UTC()
	}
	return p
}

// marksOf finds what there is to say of batches that are about to be compacted, by
// comparing each with the one before it in boot and number, and returns the batch with
// which the next are to be compared.
func marksOf(head []*held, have seen, last tail) (marks []mark, next tail) {
	by := slices.Clone(head)
	slices.SortFunc(by, func(a, b *held) int { return cmp.Or(cmp.Compare(a.Boot, b.Boot), cmp.Compare(a.Seq, b.Seq)) })
	next = last
	var before tail
	for _, h := range by {
		now := tail{Boot: h.Boot, Seq: h.Seq, Last: h.last, Clock: clockNumber(h.Clock)}
		if before.Boot != h.Boot && last.Boot == h.Boot && last.Seq < h.Seq {
			before = last
		}
		marks = append(marks, compare(before, now, h, have[h.Boot])...)
		before = now
		if cmp.Or(cmp.Compare(now.Boot, next.Boot), cmp.Compare(now.Seq, next.Seq)) > 0 {
			next = now
		}
	}
	return marks, next
}

func compare(before, now tail, h *held, have spans) (marks []mark) {
	if len(have) > 0 && have[0].from == h.Seq {
		marks = append(marks, mark{at: h.first, kind: MarkBoot, boot: h.Boot})
	}
	if h.Seq > 1 && !have.has(h.Seq-1) { // some are missing right before it
		from := uint64(1)
		if i := have.find(h.Seq); i > 0 {
			from = have[i-1].through + 1
		}
		gap := mark{at: h.first, until: h.first, kind: MarkGap, boot: h.Boot, seq: from, through: h.Seq - 1}
		if before.Boot == h.Boot && before.Seq+1 == from {
			gap.at = min(before.Last, h.first)
		}
		return append(marks, gap)
	}
	if before.Boot != h.Boot || before.Seq+1 != h.Seq {
		return marks
	}
	switch step := h.first - before.Last; {
	case step < 0:
		marks = append(marks, clockMark(h, step, before.Clock, now.Clock))
	case before.Clock != now.Clock && step > clockLeap.Milliseconds():
		marks = append(marks, clockMark(h, step, before.Clock, now.Clock))
	}
	return marks
}

func clockMark(h *held, step int64, from, to uint8) mark {
	return mark{at: h.first, kind: MarkClock, boot: h.Boot, seq: h.Seq, detail: fmt.Sprintf("%+d ms, %s to %s", step, clockNamed(from), clockNamed(to))}
}

// clocks is the clock qualities by the number that package wire has for them.
var clocks = [...]model.ClockQuality{model.ClockNone, model.ClockRTC, model.ClockGateway, model.ClockGPS, model.ClockLogin}

func clockNumber(q model.ClockQuality) uint8 { return uint8(max(0, slices.Index(clocks[:], q))) }

func clockNamed(n uint8) model.ClockQuality {
	if int(n) < len(clocks) {
		return clocks[n]
	}
	return model.ClockNone
}

// still returns what of a gap's numbers has not come to this day; ok is false where all
// have.
func (m mark) still(have spans, known bool) (mark, bool) {
	if m.kind != MarkGap {
		return m, true
	}
	missing := m.through - m.seq + 1
	for _, r := range have {
		if r.through >= m.seq && r.from <= m.through {
			missing -= min(r.through, m.through) - max(r.from, m.seq) + 1
		}
	}
	m.detail = fmt.Sprintf("%d batches", missing)
	return m, missing > 0 && known
}

// marks calls f with a file's marks of a node within [from, to).
func (f *weekFile) marks(ctx context.Context, node string, from, to int64, add func(mark)) error {
	if f == nil {
		return nil
	}
	id, ok := f.nodes[node]
	if !ok {
		return nil
	}
	return store.Classify(each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var m mark
		if err := take(rows, &m.at, &m.until, &m.kind, &m.boot, &m.seq, &m.through, &m.detail); err != nil {
			return err
		}
		add(m)
		return nil
	}, `SELECT at, until, kind, boot, seq, through, detail FROM marks WHERE node = ? AND at >= ? AND at < ? ORDER BY at LIMIT ?`, id, from, to, maxMarks))
}
