package doctor

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of what is done for others. An examination asks some twenty times in as
// many seconds.
const (
	askRate      = 4 // answers a second to one peer
	askBurst     = 40
	maxPeers     = 1024 // who has asked lately
	maxSessions  = 2    // of one peer
	sessionLife  = time.Minute
	peerLife     = 10 * time.Minute
	complainPace = time.Minute // between two times that a peer's word makes this device act
)

// witness answers for this device: what of others' probes has come. It is a state
// machine without I/O, and may be used from any goroutine. Whatever comes over bat0
// is never answered there, and counts only under a key that a peer has told through
// the overlay.
type witness struct {
	mu       sync.Mutex
	peers    map[netip.Addr]*asker
	sessions map[uint64]*session
	deafAt   time.Time // when a peer's word was last acted upon
}

// asker is a peer that asks.
type asker struct {
	tokens float64
	at     time.Time
	ids    []uint64 // of its sessions, the oldest first
}

// session is what came of one peer's probes over bat0.
type session struct {
	owner  netip.Addr
	key    [keySize]byte
	at     time.Time // when it was last asked for
	seen   [groups]uint8
	size   uint16
	copies map[uint16]bool // indexes of unicast probes that came
}

// maxCopies bounds the probes of one session: replays of more count for nothing.
const maxCopies = 256

func newWitness() *witness {
	return &witness{peers: map[netip.Addr]*asker{}, sessions: map[uint64]*session{}}
}

// ask takes a question that came through the overlay, and returns its answer. deaf
// is set when the peer says that nothing of it comes here, which is worth looking
// at.
func (w *witness) ask(now time.Time, from netip.Addr, m message) (answer message, deaf, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.kind != kindEcho && m.kind != kindWatch || !w.allow(now, from) {
		return message{}, false, false
	}
	if m.kind == kindEcho {
		return message{kind: kindEchoed, id: m.id, index: m.index, size: m.size}, false, true
	}
	s := w.session(now, from, m)
	if s == nil {
		return message{}, false, false
	}
	if deaf = m.deaf && now.Sub(w.deafAt) >= complainPace; deaf {
		w.deafAt = now
	}
	return message{kind: kindSeen, id: m.id, seen: s.seen, size: s.size}, deaf, true
}

// session returns the one that a peer asks for, made anew if need be; nil if the ID
// is another's.
func (w *witness) session(now time.Time, from netip.Addr, m message) *session {
	if s := w.sessions[m.id]; s != nil {
		if s.owner != from || s.key != m.key {
			return nil
		}
		s.at = now
		return s
	}
	a := w.peers[from] // allow has made it
	if len(a.ids) >= maxSessions {
		delete(w.sessions, a.ids[0])
		a.ids = a.ids[1:]
	}
	a.ids = append(a.ids, m.id)
	s := &session{owner: from, key: m.key, at: now, copies: map[uint16]bool{}}
	w.sessions[m.id] = s
	return s
}

// allow takes a token of a peer's.
func (w *witness) allow(now time.Time, from netip.Addr) bool {
	a := w.peers[from]
	if a == nil {
		if len(w.peers) >= maxPeers {
			w.forget(now)
		}
		if len(w.peers) >= maxPeers {
			return false
		}
		a = &asker{tokens: askBurst, at: now}
		w.peers[from] = a
	}
	a.tokens = min(askBurst, a.tokens+askRate*now.Sub(a.at).Seconds())
	a.at = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// forget drops peers that have not asked for long.
func (w *witness) forget(now time.Time) {
	for addr, a := range w.peers {
		if now.Sub(a.at) < peerLife {
			continue
		}
		for _, id := range a.ids {
			delete(w.sessions, id)
		}
		delete(w.peers, addr)
	}
}

// probe takes note of a probe that came over bat0: at the socket that has joined, or
// at the one that sees what was flooded.
func (w *witness) probe(now time.Time, m message, at uint8) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sessions[m.id]
	if s == nil || now.Sub(s.at) > sessionLife || !m.genuine(s.key) {
		return
	}
	switch m.kind {
	case kindToAll:
		if m.group == at {
			s.seen[at] |= 1 << m.index
		}
	case kindUnicast:
		if at == groupJoined && !s.copies[m.index] && len(s.copies) < maxCopies {
			s.copies[m.index] = true
			s.size = max(s.size, m.size)
		}
	}
}
