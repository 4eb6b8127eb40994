package telemetry

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry/block"
	"halo.internal/model"
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

const (
	maxAhead   = 32 * 24 * time.Hour // of Ahead; later stamps are nobody's
	mostValues = 1 << 19             // that are unpacked at a time: four days of twelve metrics every ten seconds
	mostWrites = 4 << 20             // octets that wait for a transaction
	mostMerged = 16 << 20            // octets of rollups that wait for the last transaction: of 250 nodes for a week 12 MB
	mostOwed   = 256                 // marks of a node that wait for weeks that cannot be written
)

// move is what a compaction moves: the journal up to a group.
type move struct {
	through int64
	low     int64 // stamps below, and from high on, are dropped
	high    int64
	sources []moving
	stays   map[int64]bool // groups that stay in the journal, since a week could not take all of them
}

// moving is a node's part.
type moving struct {
	src      *source
	head     []*held
	marks    []mark
	owed     []mark // of marks, for weeks that could not be written
	tail     tail
	refused  map[week]bool // that are beyond what the node may have, and dropped
	unwanted []*held       // of which something is dropped
	lost     []*held       // that cannot be read any more
}

// Compact moves what the journal holds into the week files. What a failure or a power cut
// leaves undone is done the next time: each file says up to which group it has all.
func (s *Store) Compact(ctx context.Context) error {
	s.tending.Lock()
	defer s.tending.Unlock()
	return s.compact(ctx)
}

// compact is Compact for who holds s.tending. A week that cannot take its part does not
// hold up the others: what it lacks stays in the journal.
func (s *Store) compact(ctx context.Context) error {
	if err := s.renumberLater(ctx); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	m := s.plan(ctx)
	if len(m.sources) == 0 {
		return nil
	}
	var errs []error
	failed := map[week]error{}
	for _, w := range m.weeks() {
		err := s.compactWeek(ctx, w, &m)
		if errors.Is(err, store.ErrCorrupt) {
			if err = s.repair(ctx, w, err); err == nil {
				err = s.compactWeek(ctx, w, &m)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed[w] = err
			errs = append(errs, fmt.Errorf("compact %v: %w", w, err))
			continue
		}
		s.touched[w] = true
	}
	m.keep(failed)
	if err := s.settle(ctx, &m); err != nil {
		if errors.Is(err, store.ErrCorrupt) {
			err = fmt.Errorf("%w: %w", errJournal, err)
		}
		return errors.Join(append(errs, fmt.Errorf("compact: %w", err))...)
	}
	s.tellUnwanted(&m)
	return errors.Join(append(errs, s.replaceStubborn(ctx, failed))...)
}

// keep has what the weeks that failed lack stay in the journal, and its marks in RAM.
func (m *move) keep(failed map[week]error) {
	for i := range m.sources {
		p := &m.sources[i]
		for _, mk := range p.marks {
			if failed[weekOf(mk.at)] != nil && len(p.owed) < mostOwed {
				p.owed = append(p.owed, mk)
			}
		}
		for _, h := range p.head {
			for w := range m.weeksOf(p, h) {
				if failed[w] != nil {
					m.stays[h.group] = true
				}
			}
		}
	}
}

// plan takes stock of the head.
func (s *Store) plan(ctx context.Context) move {
	low, high := s.bounds()
	m := move{low: low, high: high, stays: map[int64]bool{}}
	s.mu.RLock()
	m.through = s.lastGroup
	for _, src := range s.sources {
		if len(src.head) == 0 && len(src.owed) == 0 {
			continue
		}
		p := moving{src: src, head: slices.Clone(src.head)}
		p.marks, p.tail = s.marksOfHead(src)
		m.sources = append(m.sources, p)
	}
	s.mu.RUnlock()
	order.By(m.sources, func(a, b moving) int { return int(a.src.id - b.src.id) })
	if !s.Sure() {
		s.refuseFar(ctx, &m)
	}
	for i := range m.sources {
		p := &m.sources[i]
		for _, h := range p.head {
			unwanted := h.first < low || h.last >= high
			for w := weekOf(h.first); w <= weekOf(h.last) && !unwanted; w++ {
				unwanted = p.refused[w]
			}
			if unwanted {
				p.unwanted = append(p.unwanted, h)
			}
		}
	}
	return m
}

// bounds returns between which stamps readings are kept. While the gateway's clock is a
// guess, which is late for all that is known, nodes may know better: then refuseFar has a
// bound for each of them.
func (s *Store) bounds() (low, high int64) {
	if !s.Sure() {
		return earliest, latest
	}
	return s.near()
}

// near returns between which stamps readings are, of nodes whose time is the gateway's.
func (s *Store) near() (low, high int64) {
	return max(earliest, s.Aged().Add(-s.Retention().Keep.Hour).UnixMilli()), min(latest, s.Ahead().Add(maxAhead).UnixMilli())
}

// weeksOf yields those that a batch has something for.
func (m *move) weeksOf(p *moving, h *held) iter.Seq[week] {
	return func(yield func(week) bool) {
		first, last := max(h.first, m.low), min(h.last, m.high-1)
		for w := weekOf(first); first <= last && w <= weekOf(last); w++ {
			if !p.refused[w] && !yield(w) {
				return
			}
		}
	}
}

// weeks returns those that there is something for.
func (m *move) weeks() []week {
	all := map[week]bool{}
	for i := range m.sources {
		for _, h := range m.sources[i].head {
			for w := range m.weeksOf(&m.sources[i], h) {
				all[w] = true
			}
		}
		for _, mk := range m.sources[i].src.owed {
			if mk.at >= m.low && mk.at < m.high {
				all[weekOf(mk.at)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// edit is what is about to be written into a week file.
type edit struct {
	f       *weekFile
	nodes   map[string]int64 // new ones
	numbers map[wire.Metric]int
	brought map[int64]int // by new series
	series  []newSeries
	blocks  []editBlock
	merged  map[blockKey][]byte // see mergeRollup: written by the last commit alone
	waiting int                 // octets of merged
	stale   map[nodeDay]bool    // to be rolled up: true; or rolled up: false
	marks   []editMark
	size    int
	refused int // series beyond what a node may have

	rewritten map[string]int64 // octets that late readings have written anew, by node
}

type newSeries struct {
	id   int
	node int64
	wire.Metric
}

// editBlock is a block to be put in place of one of its key; without a body it goes.
type editBlock struct {
	node  int64
	width int
	start int64
	body  []byte
}

type blockKey struct {
	node  int64
	width int
	start int64
}

type editMark struct {
	node int64
	mark
}

func newEdit(f *weekFile) *edit {
	return &edit{f: f, merged: map[blockKey][]byte{}, nodes: map[string]int64{}, numbers: map[wire.Metric]int{}, brought: map[int64]int{}, stale: map[nodeDay]bool{}, rewritten: map[string]int64{}}
}

// node returns a node's number in the file.
func (e *edit) node(node string) int64 {
	if id, ok := e.f.nodes[node]; ok {
		return id
	}
	id, ok := e.nodes[node]
	if !ok {
		id = e.f.nextNode + int64(len(e.nodes))
		e.nodes[node] = id
	}
	return id
}

// number returns a series' number in the file; negative: the node that comes with it has
// brought as many as it may.
func (e *edit) number(node int64, m wire.Metric) int {
	if n, ok := e.f.numbers[m]; ok {
		return n
	}
	if n, ok := e.numbers[m]; ok {
		return n
	}
	if e.f.brought[node]+e.brought[node] >= nodeSeries {
		e.refused++
		return -1
	}
	n := len(e.series) + e.f.nextSeries
	e.numbers[m] = n
	e.brought[node]++
	e.series = append(e.series, newSeries{n, node, m})
	return n
}

func (e *edit) isFloat(n int) bool {
	if n >= e.f.nextSeries {
		return e.series[n-e.f.nextSeries].Scale == wire.ScaleFloat
	}
	return e.f.isFloat(n)
}

func (e *edit) put(node int64, width int, start int64, body []byte) {
	e.blocks = append(e.blocks, editBlock{node, width, start, body})
	e.size += len(body)
}

// compactWeek writes what belongs into one week's file.
func (s *Store) compactWeek(ctx context.Context, w week, m *move) error {
	f, err := s.ready(ctx, w)
	if err != nil {
		return err
	}
	defer s.weeks.release(f)
	applied := f.appliedOf(s.name)
	e := newEdit(f)
	late := s.lateIn(w, m, applied)
	for i := range m.sources {
		p := &m.sources[i]
		if p.refused[w] {
			continue
		}
		if err := s.compactNode(ctx, e, p, applied, max(m.low, w.begin()), min(m.high, w.end())); err != nil {
			return err
		}
		for _, mk := range p.marks {
			if weekOf(mk.at) == w && mk.at >= m.low && mk.at < m.high {
				e.marks = append(e.marks, editMark{e.node(p.src.node), mk})
			}
		}
		if late[p.src] {
			e.rewritten[p.src.node] += int64(filePages / len(late))
		}
		if e.size > mostWrites || e.waiting > mostMerged {
			s.partly[w] = true
			if e, err = s.commit(ctx, e, 0); err != nil {
				return err
			}
		}
	}
	if _, err = s.commit(ctx, e, m.through); err == nil {
		delete(s.partly, w)
	}
	return err
}

// errUnread is wrapped where the journal does not give a batch at present.
var errUnread = errors.New("journal")

// gather is a node's readings, unpacked, by hour.
type gather struct {
	hours  map[int64]*rows
	values int
}

// compactNode unpacks a node's batches and adds to the edit what becomes of them within
// [low, high).
func (s *Store) compactNode(ctx context.Context, e *edit, p *moving, applied, low, high int64) error {
	g := gather{hours: map[int64]*rows{}}
	numbers := map[*schema][]int{}
	for _, h := range p.head {
		if h.group <= applied || h.first >= high || h.last < low {
			continue
		}
		b, err := s.unpack(ctx, p.src.id, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, store.ErrUnavailable) && s.stuck[e.f.week].n < stubborn {
			return fmt.Errorf("%w: batch %v of %s: %w", errUnread, h.BatchID, p.src.node, err)
		}
		if err != nil {
			s.Log.Error("a batch cannot be read", "node", p.src.node, "batch", h.BatchID, "err", err)
			if !slices.Contains(p.lost, h) {
				p.lost = append(p.lost, h)
			}
			continue
		}
		node := e.node(p.src.node)
		of := numbers[h.schema]
		if of == nil {
			for _, metric := range h.schema.Metrics {
				of = append(of, e.number(node, metric))
			}
			numbers[h.schema] = of
		}
		quality := clockNumber(b.Clock)
		for _, m := range stepsIn(&b) {
			if m.at >= low && m.at < high {
				e.marks = append(e.marks, editMark{node, m})
			}
		}
		for i := range b.Reports {
			r := &b.Reports[i]
			if r.Time < low || r.Time >= high {
				continue
			}
			hour := floor(r.Time, hourMS) / hourMS
			if g.hours[hour] == nil {
				g.hours[hour] = newRows()
			}
			g.hours[hour].addReport(h.schema, of, quality, r)
		}
		if g.values += len(b.Reports) * len(of); g.values > mostValues {
			if err := s.flush(ctx, e, p.src.node, &g); err != nil {
				return err
			}
			// What comes next is merged with it in the file.
			s.partly[e.f.week] = true
			next, err := s.commit(ctx, e, 0)
			if err != nil {
				return err
			}
			*e = *next
			clear(numbers)
		}
	}
	return s.flush(ctx, e, p.src.node, &g)
}

// flush merges what was gathered with what the file holds.
func (s *Store) flush(ctx context.Context, e *edit, node string, g *gather) error {
	for _, hour := range slices.Sorted(maps.Keys(g.hours)) {
		r := g.hours[hour]
		var err error
		switch at := hour * hourMS; {
		case at < e.f.from.hour:
			err = s.mergeRollup(ctx, e, node, hourly, hour-hour%24, r)
		case at < e.f.from.quarter:
			if err = s.mergeRollup(ctx, e, node, quarter, hour-hour%24, r); err == nil {
				err = s.mergeRollup(ctx, e, node, hourly, hour-hour%24, r)
			}
		default:
			err = s.mergeHour(ctx, e, node, hour, r)
		}
		if err != nil {
			return fmt.Errorf("%s, hour %d: %w", node, hour, err)
		}
	}
	g.hours, g.values = map[int64]*rows{}, 0
	return nil
}

// mergeHour merges readings with the block of their hour: of readings, or of minutes where
// those have taken their place.
func (s *Store) mergeHour(ctx context.Context, e *edit, node string, hour int64, r *rows) error {
	id := e.node(node)
	d := nodeDay{id, floor(hour, 24) / 24}
	if err := e.againRollups(ctx, node, d); err != nil {
		return err
	}
	e.stale[d] = true
	if hour*hourMS < e.f.from.minute {
		if there, err := s.stored(ctx, e.f, node, minute, hour, nil); err != nil {
			return err
		} else if there != nil {
			return s.mergeRollup(ctx, e, node, minute, hour, r)
		}
	}
	there, err := s.stored(ctx, e.f, node, raw, hour, nil)
	if err != nil {
		return err
	}
	if there != nil {
		both := newRows()
		both.addBlock(there, func(n int) int { return n })
		b, _ := r.block(1)
		both.addBlock(b, func(n int) int { return n })
		r = both
	}
	e.refused += r.bound(nodeSeries)
	body, left, err := r.encode(about(node, raw, hour))
	if err != nil {
		return err
	}
	if left > 0 {
		s.given.tell(s, "telemetry.crowded", node, "it made more readings within an hour than are kept", map[string]string{"rows": fmt.Sprint(left)})
	}
	e.put(id, raw, hour, body)
	if there != nil && s.late(hour*hourMS, hour*hourMS) {
		e.again(node, len(body))
	}
	return nil
}

// mergeRollup adds readings to buckets whose readings are not kept any more. To add them twice
// would count them twice, and of a file that has a part of what it should a power cut, or an
// error, has all be done again: so these blocks are written by the commit that says that the
// file has all, and by no other. Until then they are in RAM, as encoded; what is too much for that
// does not wait.
func (s *Store) mergeRollup(ctx context.Context, e *edit, node string, width int, start int64, r *rows) error {
	key := blockKey{e.node(node), width, start}
	roll := newRoller(width, e.isFloat)
	var there *block.Block
	body, again := e.merged[key] // of another of the day's hours, or of what was committed before
	var err error
	if again {
		there, err = block.Decode(body, about(node, width, start), nil)
	} else {
		there, err = s.stored(ctx, e.f, node, width, start, nil)
	}
	if err != nil {
		return err
	}
	inFile := there != nil && !again
	if there != nil {
		u, err := block.ReadRollup(there, e.isFloat)
		if err != nil {
			s.damaged(e.f.week, fmt.Errorf("%s, width %d, hour %d: %w", node, width, start, err))
		} else {
			roll.addRollup(u)
		}
	}
	b, _ := r.block(1)
	roll.addBlock(b)
	body, left, err := roll.encode(about(node, width, start))
	if err != nil || body == nil {
		return err
	}
	s.tellLeft(node, left)
	e.waiting += len(body) - len(e.merged[key])
	e.merged[key] = body
	if inFile {
		e.again(node, len(body))
	}
	return nil
}

// tellLeft tells of series that a rollup has no room for.
func (s *Store) tellLeft(node string, series int) {
	if series > 0 {
		s.given.tell(s, "telemetry.crowded", node, "it made readings of more metrics, or of wider ones, than a rollup has room for", map[string]string{"metrics": fmt.Sprint(series)})
	}
}

// stored reads a block of a file; nil: there is none, or one that is damaged, which is
// seen to.
func (s *Store) stored(ctx context.Context, f *weekFile, node string, width int, start int64, want func(int) bool) (*block.Block, error) {
	id, ok := f.nodes[node]
	if !ok {
		return nil, nil
	}
	var body []byte
	err := f.db.Read().QueryRowContext(ctx, `SELECT body FROM blocks WHERE node = ? AND width = ? AND start = ?`, id, width, start).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, store.Classify(err)
	}
	b, err := block.Decode(body, about(node, width, start), want)
	if err != nil {
		s.damaged(f.week, fmt.Errorf("%s, width %d, hour %d: %w", node, width, start, err))
		return nil, nil
	}
	return b, nil
}

// commit writes an edit in one transaction, which holds readers up for no longer than
// that, and returns an empty one, but for what only the last may write. through is up to which
// group the file then has all; 0: it has more to come.
func (s *Store) commit(ctx context.Context, e *edit, through int64) (*edit, error) {
	f := e.f
	f.lock.Lock()
	defer f.lock.Unlock()
	err := f.db.Write(ctx, func(tx *sql.Tx) error { return e.write(ctx, tx, s.name, through) })
	if err != nil {
		s.weeks.retire(f) // what it holds is not known for sure
		return nil, err
	}
	s.commits.Add(1)
	s.charge(e)
	if e.refused > 0 {
		s.given.tell(s, "telemetry.series", "", fmt.Sprintf("a node may have %d metrics within a week; more are not kept", nodeSeries), nil)
	}
	maps.Copy(f.nodes, e.nodes)
	for _, n := range e.series {
		f.series[n.id], f.numbers[n.Metric] = n.Metric, n.id
		f.brought[n.node]++
	}
	f.nextSeries, f.nextNode = f.nextSeries+len(e.series), f.nextNode+int64(len(e.nodes))
	for d, is := range e.stale {
		if is {
			f.stale[d] = true
		} else {
			delete(f.stale, d)
		}
	}
	next := newEdit(f)
	if through > 0 {
		f.journal, f.applied = string(s.name), through
	}
	if !e.writesMerged(through) {
		next.merged, next.waiting = e.merged, e.waiting
	}
	return next, nil
}

func (e *edit) write(ctx context.Context, tx *sql.Tx, journal []byte, through int64) error {
	run := func(query string, args ...any) error { _, err := tx.ExecContext(ctx, query, args...); return err }
	for node, id := range e.nodes {
		if err := run(`INSERT INTO nodes VALUES (?, ?, ?)`, id, node, nodeSum(id, node)); err != nil {
			return err
		}
	}
	for _, n := range e.series {
		if err := run(`INSERT INTO series VALUES (?, ?, ?, ?, ?, ?)`, n.id, n.node, n.Name, n.Unit, n.Scale, seriesSum(int64(n.id), n.node, n.Metric)); err != nil {
			return err
		}
	}
	blocks := e.blocks
	if e.writesMerged(through) {
		blocks = append(blocks, e.mergedBlocks()...)
	}
	if err := writeBlocks(ctx, tx, blocks); err != nil {
		return err
	}
	for d, is := range e.stale {
		query, args := `DELETE FROM stale WHERE node = ? AND day = ?`, []any{d.node, d.day}
		if is {
			query, args = `INSERT OR IGNORE INTO stale VALUES (?, ?, ?)`, append(args, d.sum())
		}
		if err := run(query, args...); err != nil {
			return err
		}
	}
	for _, m := range e.marks {
		if m.kind == MarkBoot { // an earlier batch of the boot may have come meanwhile
			if err := run(`DELETE FROM marks WHERE node = ? AND kind = ? AND boot = ?`, m.node, m.kind, m.boot); err != nil {
				return err
			}
		}
		if err := run(`INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, m.node, m.at, m.kind, m.boot, m.seq, m.through, m.until, m.detail, m.sum()); err != nil {
			return err
		}
	}
	if through == 0 {
		return nil
	}
	return putMeta(ctx, tx, string(journal), through, e.f.from)
}

// writesMerged tells whether a commit is the one that writes what was merged.
func (e *edit) writesMerged(through int64) bool { return through > 0 || e.waiting > mostMerged }

// mergedBlocks returns them by node, a day's beside each other.
func (e *edit) mergedBlocks() []editBlock {
	list := make([]editBlock, 0, len(e.merged))
	for k, body := range e.merged {
		list = append(list, editBlock{k.node, k.width, k.start, body})
	}
	slices.SortFunc(list, func(a, b editBlock) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.start, b.start), cmp.Compare(a.width, b.width))
	})
	return list
}

func writeBlocks(ctx context.Context, tx *sql.Tx, blocks []editBlock) error {
	if len(blocks) == 0 {
		return nil
	}
	put, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO blocks (node, width, start, body) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer put.Close()
	for _, b := range blocks {
		if b.body == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM blocks WHERE node = ? AND width = ? AND start = ?`, b.node, b.width, b.start)
		} else {
			_, err = put.ExecContext(ctx, b.node, b.width, b.start, b.body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle takes out of the journal what the week files have, and writes down what came.
func (s *Store) settle(ctx context.Context, m *move) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.swapTails(m, 1)
	today := day(s.now())
	var dropped []*schema
	if err := s.db.Write(ctx, func(tx *sql.Tx) (err error) {
		for _, p := range m.sources {
			came, err := p.src.marshalCame()
			if err != nil {
				return err
			}
			latest, err := s.latest.marshal(p.src.node)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE sources SET came = ?, latest = ? WHERE id = ?`, came, latest, p.src.id); err != nil {
				return err
			}
		}
		if dropped, err = s.settleSchemas(ctx, tx, today); err != nil {
			return err
		}
		stays, err := json.Marshal(slices.AppendSeq([]int64{}, maps.Keys(m.stays)))
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM groups WHERE id <= ? AND id NOT IN (SELECT value FROM json_each(?))`, m.through, string(stays)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE journal SET compacted = ?, sum = ?`, m.through, journalSum(s.name, m.through))
		return err
	}); err != nil {
		s.swapTails(m, -1) // as they were: the next time they are compared and counted again
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sch := range s.schemas {
		if sch.held > 0 {
			sch.used = today
		}
	}
	for _, p := range m.sources {
		s.forget(p.src, m.settled)
	}
	s.compacted = m.through
	for _, old := range dropped {
		delete(s.schemas, old.id)
	}
	return nil
}

// swapTails counts what was dropped, or counts it back, and exchanges the batches with
// which the next ones are compared.
func (s *Store) swapTails(m *move, sign int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range m.sources {
		p := &m.sources[i]
		p.src.tail, p.tail = p.tail, p.src.tail
		p.src.owed, p.owed = p.owed, p.src.owed
		for _, h := range slices.Concat(p.unwanted, p.lost) {
			if _, known := p.src.seen[h.Boot]; known && m.settled(h) {
				p.src.dropped[h.Boot] += uint64(sign)
			}
		}
	}
}

// settled tells whether a batch is taken out of the journal.
func (m *move) settled(h *held) bool { return h.group <= m.through && !m.stays[h.group] }

// settleSchemas writes down which schemas are in use, once a day, and drops those that
// have not been for long.
func (s *Store) settleSchemas(ctx context.Context, tx *sql.Tx, today int64) (dropped []*schema, err error) {
	for _, sch := range s.schemas {
		switch {
		case sch.held > 0 && sch.used != today:
			_, err = tx.ExecContext(ctx, `UPDATE schemas SET used = ? WHERE id = ?`, today, sch.id[:])
		case sch.held == 0 && sch.used < today-schemaDays:
			dropped = append(dropped, sch)
			_, err = tx.ExecContext(ctx, `DELETE FROM schemas WHERE id = ?`, sch.id[:])
		}
		if err != nil {
			return nil, err
		}
	}
	return dropped, nil
}

// count returns how many batches of a list are settled.
func (m *move) count(list []*held) (n int) {
	for _, h := range list {
		if m.settled(h) {
			n++
		}
	}
	return n
}

// tellUnwanted says whose stamps nobody can believe, and whose batches cannot be read.
func (s *Store) tellUnwanted(m *move) {
	for i := range m.sources {
		p := &m.sources[i]
		if n := m.count(p.lost); n > 0 {
			s.Events.Add("telemetry.unreadable", model.Error, p.src.node, fmt.Sprintf("%d of its batches, which were acknowledged, cannot be read any more: their readings are lost", n), map[string]string{"batches": fmt.Sprint(n), "batch": p.lost[0].BatchID.String()})
		}
		n := m.count(p.unwanted)
		if n == 0 {
			continue
		}
		why := fmt.Sprintf("stamped more than %d days ahead, or before anything is kept", int(maxAhead.Hours()/24))
		if len(p.refused) > 0 {
			why = "stamped within more weeks than a node may have that are far from the gateway's time, which is a guess"
		}
		s.given.tell(s, "telemetry.misdated", p.src.node, fmt.Sprintf("%d of its batches are %s; those readings are dropped", n, why), map[string]string{"batches": fmt.Sprint(n)})
	}
}

// given is which events were given lately: each kind once an hour for each node.
type given struct{ at map[string]time.Time }

const (
	givenEvery = time.Hour
	maxGiven   = 2048
)

func (g *given) tell(s *Store, kind, node, message string, fields map[string]string) {
	s.mu.Lock()
	now, what := s.now(), kind+" "+node
	last, again := g.at[what]
	again = again && now.Sub(last).Abs() < givenEvery
	if !again {
		if g.at == nil || len(g.at) >= maxGiven {
			g.at = map[string]time.Time{}
		}
		g.at[what] = now
	}
	s.mu.Unlock()
	if !again {
		s.Events.Add(kind, model.Warning, node, message, fields)
	}
}
