package mesh

import (
	"maps"
	"time"
)

// That a node has restarted, or will have another overlay key, the gateway's own
// overlay follows at once. The others learn of it from the list of members, and
// that costs: of 250 nodes each fetches 27 kB. So lives and keys are collected, for a
// board whose supply is failing restarts every half minute, a whole site at once,
// and a captured node says what it likes. Who is a member, who was revoked, and
// which operators' certificates are over is signed at once, and what was collected
// with it.
//
// What waits costs little. A peer that has restarted answers handshakes as ever; its
// own are refused by a member that does not know of its new life only while its
// clock is behind what it was.
//
// The card is later still. After a power cut the gateway has lives that are up to
// livesKept old. WireGuard has forgotten all that it knew of peers by then, so that
// handshakes of a later life are taken; whoever has recorded what a node signed in
// between can have that node's session begin anew once for each such life, until it
// speaks itself. Nodes let no list of the same epoch take a life back. A next key
// that is lost is claimed again with the node's next question; one that is in use by
// then comes from gateway-api, which the node has told by joining anew.
const (
	livesEvery  = 30 * time.Second // between lists that differ in lives and keys alone, or more: see fetchSpread
	livesBurst  = 4                // such lists at once, after quiet
	livesKept   = 15 * time.Minute // before the card hears of lives and keys
	restartTold = 5 * time.Minute  // between events of one node's restarts
)

// lives is what the gateway has heard of nodes and not passed on yet.
type lives struct {
	unsigned bool      // the list of members lacks something
	unsaved  time.Time // since when the card does; zero: it has all
	full     time.Time // when a whole burst of lists may be signed again
	restarts map[string]time.Time
}

// heard notes that a node's life or keys are others.
func (l *lives) heard(now time.Time) {
	l.unsigned = true
	if l.unsaved.IsZero() {
		l.unsaved = now
	}
}

// sign tells whether a list is to be signed for what was heard, when there may be
// one in that time.
func (l *lives) sign(now time.Time, every time.Duration) bool {
	if !l.unsigned || l.full.Sub(now) > (livesBurst-1)*every {
		return false
	}
	if l.full.Before(now) {
		l.full = now
	}
	l.full = l.full.Add(every)
	return true
}

// save tells whether the card is to hear of it.
func (l *lives) save(now time.Time) bool {
	return !l.unsaved.IsZero() && now.Sub(l.unsaved) >= livesKept
}

// tells whether a restart of that node is an event of its own.
func (l *lives) tells(node string, now time.Time) bool {
	maps.DeleteFunc(l.restarts, func(_ string, at time.Time) bool { return now.Sub(at) >= restartTold })
	if _, told := l.restarts[node]; told {
		return false
	}
	if l.restarts == nil {
		l.restarts = map[string]time.Time{}
	}
	l.restarts[node] = now
	return true
}

// keepLives writes what the card has not heard of yet: the process ends.
func (g *gateway) keepLives() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.lives.unsaved.IsZero() {
		g.saveRegistry()
	}
}
