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
	MarkLeap  = "leap"  // its clock was put forward, or nothing was measured meanwhile
	MarkGap   = "gap"   // batches that it made never came
)

// Stamps are all that the wire has of a node's clock: what was done to it shows in how they
// follow each other, from one batch to the next of the same boot. Back they go only when a
// clock was put back. Forward is either a clock that was put forward or a pause: where its
// quality changed there, it is taken for the former if it is more than a few readings can
// lack, and else, from minutes on, it can't be told. The node itself tells of each correction
// of more than 5 s, by the event clock.corrected.
const (
	clockSlack  = 5 * time.Second // halo-mesh leaves smaller differences
	clockLeap   = 5 * time.Minute // also where it is not known how far apart readings are
	slackSteps  = 2               // readings that a change of quality may be late by
	leapSteps   = 3               // and those that it takes to be a leap
	fewestSteps = 2               // between readings, to know how far apart they are
)

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

// stepsIn tells of a batch in which stamps go back, or leap: of the first time that they do
// either, so that a node whose clock jumps to and fro does not fill the files with that.
func stepsIn(b *wire.Batch) (marks []mark) {
	times := make([]int64, len(b.Reports))
	for i := range b.Reports {
		times[i] = b.Reports[i].Time
	}
	leap := leapOf(spacingOf(times))
	for _, kind := range []string{MarkClock, MarkLeap} {
		n := 0
		var m mark
		for i := 1; i < len(times); i++ {
			step := times[i] - times[i-1]
			if is := step < 0 && kind == MarkClock || step > leap && kind == MarkLeap; !is {
				continue
			}
			if n++; n == 1 {
				m = mark{at: times[i], kind: kind, boot: b.Boot, seq: b.Seq, detail: fmt.Sprintf("%+d ms", step)}
			}
		}
		if n > 1 {
			m.detail += fmt.Sprintf(", the first of %d times", n)
		}
		if n > 0 {
			marks = append(marks, m)
		}
	}
	return marks
}

// spacingOf returns how far apart readings are, in milliseconds: the median, of which a step
// of the clock is not one. 0: it cannot be told.
func spacingOf(times []int64) int64 {
	var steps []int64
	for i := 1; i < len(times); i++ {
		if step := times[i] - times[i-1]; step > 0 {
			steps = append(steps, step)
		}
	}
	if len(steps) < fewestSteps {
		return 0
	}
	slices.Sort(steps)
	return steps[(len(steps)-1)/2]
}

// leapOf returns beyond how much a step is a leap, of readings that are so far apart.
func leapOf(spacing int64) int64 {
	if spacing == 0 {
		return math.MaxInt64
	}
	return max(clockLeap.Milliseconds(), leapSteps*spacing)
}

// spacing is spacingOf a batch.
func (h *held) spacing() int64 {
	p, err := wire.Open(h.data)
	if err != nil {
		return 0
	}
	times, err := p.Times()
	if err != nil {
		return 0
	}
	return spacingOf(times)
}

// marksOfHead finds what there is to say of a node's batches in the head, and returns the batch
// with which the next are to be compared. Of those that wait for a week that could not be
// written it was found when they were compacted first. The caller holds s.mu.
func (s *Store) marksOfHead(src *source) (marks []mark, next tail) {
	fresh := slices.DeleteFunc(slices.Clone(src.head), func(h *held) bool { return h.group <= s.compacted })
	marks, next = marksOf(fresh, src.seen, src.tail)
	return append(slices.Clone(src.owed), marks...), next
}

// marksOf compares each batch with the one before it in boot and number, and the first with
// the last of those that were compacted before. It keeps by for itself.
func marksOf(by []*held, have seen, last tail) (marks []mark, next tail) {
	slices.SortFunc(by, func(a, b *held) int { return cmp.Or(cmp.Compare(a.Boot, b.Boot), cmp.Compare(a.Seq, b.Seq)) })
	next = last
	var before tail
	var neighbour *held // that before is of; nil: it is not in the head any more
	for _, h := range by {
		now := tail{Boot: h.Boot, Seq: h.Seq, Last: h.last, Clock: clockNumber(h.Clock)}
		if last.Boot == h.Boot && last.Seq < h.Seq && (before.Boot != h.Boot || before.Seq < last.Seq) {
			before, neighbour = last, nil
		}
		marks = append(marks, compare(before, now, neighbour, h, have[h.Boot])...)
		before, neighbour = now, h
		if cmp.Or(cmp.Compare(now.Boot, next.Boot), cmp.Compare(now.Seq, next.Seq)) > 0 {
			next = now
		}
	}
	return marks, next
}

func compare(before, now tail, neighbour, h *held, have spans) (marks []mark) {
	if len(have) > 0 && have[0].from == h.Seq {
		marks = append(marks, mark{at: h.first, kind: MarkBoot, boot: h.Boot})
	}
	if h.Seq > 1 && have.missing(h.Seq-1) { // some are missing right before it
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
	step, kind := h.first-before.Last, ""
	if step < 0 {
		kind = MarkClock
	} else if step > clockSlack.Milliseconds() {
		kind = leapKind(step, before.Clock != now.Clock, neighbour, h)
	}
	if kind != "" {
		marks = append(marks, mark{at: h.first, kind: kind, boot: h.Boot, seq: h.Seq, detail: fmt.Sprintf("%+d ms, %s to %s", step, clockNamed(before.Clock), clockNamed(now.Clock))})
	}
	return marks
}

// leapKind tells what a step forward between two batches is; "": nothing.
func leapKind(step int64, changed bool, neighbour, h *held) string {
	spacing := h.spacing()
	if neighbour != nil {
		spacing = max(spacing, neighbour.spacing())
	}
	usual := slackSteps*spacing + clockSlack.Milliseconds()
	if spacing == 0 {
		usual = clockLeap.Milliseconds()
	}
	switch {
	case changed && step > usual:
		return MarkClock
	case !changed && step > leapOf(spacing):
		return MarkLeap
	}
	return ""
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
// what never came. A page also ends, maybe without any, when half of the time is over that ctx
// leaves.
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
		fresh, _ = s.marksOfHead(src)
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
	late := halfway(ctx)
	for _, w := range s.weeks.list() {
		if w.begin() >= high || w.end() <= low {
			continue
		}
		if w.begin() > low && late() {
			if err = before(w.begin()); err == nil {
				list.Next, err = strconv.FormatInt(w.begin()-1, 10), errEnough
			}
			break
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
