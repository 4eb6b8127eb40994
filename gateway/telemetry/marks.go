package telemetry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/wire"
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

// mark is one as a week file has it.
type mark struct {
	at, until    int64
	kind         string
	boot         uint64
	seq, through uint64 // of a gap: the numbers; of a clock: the batch
	detail       string
}

func (m mark) public() apitype.Mark {
	p := apitype.Mark{Time: time.UnixMilli(m.at).UTC(), Kind: m.kind, Boot: m.boot, Detail: m.detail}
	if m.kind == MarkGap {
		until := time.UnixMilli(m.until).UTC()
		p.Until = &until
	}
	return p
}

// stepBack tells of a batch in which stamps go back: of the first time that they do, so
// that a node whose clock jumps to and fro does not fill the files with that.
func stepBack(b *wire.Batch) (m mark, ok bool) {
	steps := 0
	for i := 1; i < len(b.Reports); i++ {
		step := b.Reports[i].Time - b.Reports[i-1].Time
		if step >= 0 {
			continue
		}
		if steps++; steps == 1 {
			m = mark{at: b.Reports[i].Time, kind: MarkClock, boot: b.Boot, seq: b.Seq, detail: fmt.Sprintf("%+d ms", step)}
		}
	}
	if steps > 1 {
		m.detail += fmt.Sprintf(", the first of %d times", steps)
	}
	return m, steps > 0
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

// marks calls f with a file's marks of a node within [from, to), in the order of time.
func (f *weekFile) marks(ctx context.Context, node string, from, to int64, add func(mark) error) error {
	if f == nil {
		return nil
	}
	id, ok := f.nodes[node]
	if !ok {
		return nil
	}
	return store.Classify(each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		m := editMark{node: id}
		var sum int64
		if err := take(rows, &m.at, &m.until, &m.kind, &m.boot, &m.seq, &m.through, &m.detail, &sum); err != nil {
			return err
		}
		if sum != m.sum() {
			return fmt.Errorf("%w: a mark of %s is not what was written", store.ErrCorrupt, node)
		}
		return add(m.mark)
	}, `SELECT at, until, kind, boot, seq, through, detail, sum FROM marks WHERE node = ? AND at >= ? AND at < ? ORDER BY at`, id, from, to))
}

func (m editMark) sum() int64 {
	return int64(crc32.Checksum(fmt.Appendf(nil, "%d %d %q %d %d %d %d %q", m.node, m.at, m.kind, m.boot, m.seq, m.through, m.until, m.detail), castagnoli))
}

// MarkQuery selects what is to be said of a node's readings.
type MarkQuery struct {
	Node     string
	From, To time.Time // the latter not included
	Cursor   string
	Limit    int // marks; a page ends with the instant that reaches it
}

// Marks reads a page of marks in the order of time: starts, corrections of the clock, and
// what never came.
func (s *Store) Marks(ctx context.Context, q MarkQuery) (apitype.MarkList, error) {
	list := apitype.MarkList{Node: q.Node, Items: []apitype.Mark{}}
	for i, id := range s.identities(q.Node) {
		q.Node = id
		more, err := s.marksOf(ctx, q)
		if err != nil {
			return list, err
		}
		if i == 0 {
			list = more
			continue
		}
		p := together(page[apitype.Mark]{list.Items, list.Next}, page[apitype.Mark]{more.Items, more.Next}, func(m apitype.Mark) int64 { return m.Time.UnixMilli() }, q.Limit)
		list.Items, list.Next = p.items, p.next
	}
	return list, nil
}

// marksOf is Marks of what is stored under one ID.
func (s *Store) marksOf(ctx context.Context, q MarkQuery) (apitype.MarkList, error) {
	list := apitype.MarkList{Node: q.Node, Items: []apitype.Mark{}}
	low, high, err := since(q.Cursor, q.From.UnixMilli(), q.To.UnixMilli())
	if err != nil {
		return list, err
	}
	s.mu.RLock()
	var fresh []mark
	have := seen{}
	if src := s.sources[q.Node]; src != nil {
		fresh, _ = marksOf(src.head, src.seen, src.tail)
		for boot, spans := range src.seen {
			have[boot] = slices.Clone(spans)
		}
	}
	s.mu.RUnlock()
	order.By(fresh, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	last := low
	add := func(m mark) error {
		spans, known := have[m.boot]
		m, ok := m.still(spans, known)
		if !ok || m.at < low || m.at >= high {
			return nil
		}
		if len(list.Items) >= q.Limit && m.at > last {
			list.Next = strconv.FormatInt(last, 10)
			return errEnough
		}
		if p := m.public(); !slices.ContainsFunc(list.Items[max(0, len(list.Items)-8):], func(o apitype.Mark) bool { return same(o, p) }) {
			list.Items, last = append(list.Items, p), m.at
		}
		return nil
	}
	before := func(at int64) error { // hands over those of the head
		for len(fresh) > 0 && fresh[0].at < at {
			m := fresh[0]
			fresh = fresh[1:]
			if err := add(m); err != nil {
				return err
			}
		}
		return nil
	}
	for _, w := range s.weeks.list() {
		if w.begin() >= high || w.end() <= low {
			continue
		}
		err = s.readWeek(ctx, w, func(f *weekFile) error {
			return f.marks(ctx, q.Node, low, high, func(m mark) error {
				if err := before(m.at); err != nil {
					return err
				}
				return add(m)
			})
		})
		if err != nil {
			break
		}
	}
	if err == nil {
		err = before(math.MaxInt64)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return list, fmt.Errorf("marks of %s: %w", q.Node, err)
	}
	return list, nil
}

// same tells whether the head and a file say the same.
func same(a, b apitype.Mark) bool {
	return a.Time.Equal(b.Time) && a.Kind == b.Kind && a.Boot == b.Boot && a.Detail == b.Detail
}
