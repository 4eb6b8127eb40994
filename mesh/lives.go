package mesh

import (
	"context"
	"maps"
	"slices"
	"time"

	"halo.internal/identity"
)

// That a node has restarted, or will have another overlay key, the gateway's own
// overlay follows at once. The others learn of it from the list of members, and
// that costs: of 250 nodes each fetches 27 kB. So lives and keys are collected, for a
// board whose supply is failing restarts every half minute, a whole site at once,
// and a captured node says what it likes. Who is a member, who was revoked, and
// which operators' certificates are over is signed at once, and what was collected
// with it.
//
// What waits costs little. Who hears a node's question to all knows of its new life by
// that (again.go); for the others, a peer that has restarted answers handshakes as
// ever, and its own are refused only while its clock is behind what it was.
//
// A key that nobody expects presses: that of a card from before the node's key was
// changed, or one with which a node has joined anew. The others have the one that is
// dead, and neither end reaches the other. It is seldom an honest node's lot, so that a
// node has that once in a while, and all together as often as lists that can wait.
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
	keyPresses  = 10 * time.Minute // between lists that press for keys of one node
)

// lives is what the gateway has heard of nodes and not passed on yet.
type lives struct {
	unsigned bool      // the list of members lacks something
	unsaved  time.Time // since when the card does; zero: it has all
	quiet    allowance // of lists that can wait
	pressing allowance // of those that press
	restarts map[string]time.Time
	pressed  map[identity.PublicKey]time.Time // when lists pressed for keys of nodes
}

// allowance is how often something may happen: a burst at once after quiet, else once
// in a time. The zero value is a whole one.
type allowance struct{ full time.Time } // when a whole burst is allowed again

// take tells whether it may happen now, and counts that it does.
func (a *allowance) take(now time.Time, every time.Duration, burst int) bool {
	if a.full.Sub(now) > time.Duration(burst-1)*every {
		return false
	}
	if a.full.Before(now) {
		a.full = now
	}
	a.full = a.full.Add(every)
	return true
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
	return l.unsigned && l.quiet.take(now, every, livesBurst)
}

// press tells whether a list that presses is to be signed for these nodes, whose keys
// are others than anybody expects, when there may be one in that time.
func (l *lives) press(now time.Time, every time.Duration, nodes []identity.PublicKey) bool {
	maps.DeleteFunc(l.pressed, func(_ identity.PublicKey, at time.Time) bool { return now.Sub(at) >= keyPresses })
	fresh := func(key identity.PublicKey) bool { _, had := l.pressed[key]; return !had }
	if !slices.ContainsFunc(nodes, fresh) || !l.pressing.take(now, every, livesBurst) {
		return false
	}
	if l.pressed == nil {
		l.pressed = map[identity.PublicKey]time.Time{}
	}
	for _, key := range nodes {
		l.pressed[key] = now
	}
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

// saveLives writes what was collected when it is due, until ctx ends. It has a turn of its
// own: a card that stalls must not have the overlay keep who is gone.
func (g *gateway) saveLives(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.saveNow:
		}
		g.mu.Lock()
		save := g.lives.save(time.Now()) // what was written meanwhile took it along
		g.mu.Unlock()
		if save {
			g.saveRegistry()
		}
	}
}

// keepLives writes what the card has not heard of yet: the process ends.
func (g *gateway) keepLives() {
	g.mu.Lock()
	save := !g.lives.unsaved.IsZero()
	g.mu.Unlock()
	if save {
		g.saveRegistry()
	}
}
