package telemetry

import (
	"context"
	"time"

	"halo.internal/gateway/store"
)

// What is late goes into the block of its hour, which is written anew, however little of it
// there is, and into the file of its week, whose pages are. Whoever spreads a few readings
// over all hours of the weeks that a node may have in the head would have all of these
// written anew by each compaction. So a node has an allowance of octets for that. It is
// charged for what a compaction has done, since nobody knows before what there is to be
// written anew; what was acknowledged is merged in any case. Of a node that owes more than its
// burst nothing is taken that is late until it does not: what waits was not acknowledged, so
// that the node keeps it, and nothing more has to be kept here.
//
// What is written for the first time costs its share of the file's pages, and nothing else:
// the backlog of a node that comes home is charged for these and for the few hours at which
// compactions part it.

// allowance is what of a node may be written anew, in octets.
type allowance struct {
	burst     int64
	perSecond int64
}

const (
	rewriteBurst     = 64 << 20
	rewritePerSecond = 1 << 10 // 88 MB a day

	// What is written besides, as measured: for a block whose neighbours stay as they are, in
	// file and journal, what it shares pages with, and whatever else lies in the blocks of the
	// medium that these are in; for a file, by its compaction and for its rollups, what its
	// small tables and indexes take.
	blockPages = 16 << 10
	filePages  = 96 << 10
)

// account is what a node owes for what was written anew. The zero value owes nothing.
type account struct {
	octets int64
	at     time.Time // by ticks
}

// owes returns how much that is by now.
func (a allowance) owes(of account, now time.Time) int64 {
	return max(0, of.octets-int64(now.Sub(of.at).Seconds()*float64(a.perSecond)))
}

// charge has an account owe more.
func (a allowance) charge(of *account, octets int64, now time.Time) {
	*of = account{a.owes(*of, now) + octets, now}
}

// late tells whether stamps are not all of the hour that it is or the one before: the blocks
// of those are written anew by each compaction, and that is nobody's fault.
func (s *Store) late(first, last int64) bool {
	now := floor(s.now().UnixMilli(), hourMS)
	return first < now-hourMS || last >= now+hourMS
}

// Overdrawn tells whether a node owes too much for a batch of those stamps to be taken. Then it
// has to send it again some time later.
func (s *Store) Overdrawn(node string, first, last int64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	src := s.sources[node]
	return src != nil && s.mayRewrite.owes(src.rewritten, s.ticks()) > s.mayRewrite.burst && s.late(first, last)
}

// lateIn returns the nodes of which there is something late for a week's file, which has all
// up to that group.
func (s *Store) lateIn(w week, m *move, applied int64) map[*source]bool {
	late := map[*source]bool{}
	for i := range m.sources {
		p := &m.sources[i]
		for _, h := range p.head {
			if first, last := max(h.first, m.low, w.begin()), min(h.last, m.high-1, w.end()-1); h.group > applied && !p.refused[w] && first <= last && s.late(first, last) {
				late[p.src] = true
				break
			}
		}
	}
	return late
}

// again notes that the edit puts a block of those octets in the place of one that the file has:
// both are written, the latter into the file's journal, in pages that are not quite full.
func (e *edit) again(node string, octets int) {
	e.rewritten[node] += int64(octets)*17/8 + blockPages
}

// againRollups notes that the rollups of a node's day that there are are about to be made anew.
func (e *edit) againRollups(ctx context.Context, node string, d nodeDay) error {
	if e.f.stale[d] || e.stale[d] {
		return nil // they are in any case
	}
	rows, err := e.f.db.Read().QueryContext(ctx, `SELECT length(body) FROM blocks WHERE node = ? AND width IN (?, ?) AND start = ?`, d.node, quarter, hourly, d.day*24)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var octets int
		if err := rows.Scan(&octets); err != nil {
			return store.Classify(err)
		}
		e.again(node, octets)
	}
	return store.Classify(rows.Err())
}

// charge has the nodes owe for what an edit has written anew.
func (s *Store) charge(e *edit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, octets := range e.rewritten {
		if src := s.sources[node]; src != nil {
			s.mayRewrite.charge(&src.rewritten, octets, s.ticks())
		}
	}
}
