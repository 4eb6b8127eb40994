package auth

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Who knows the claim code of a gateway that has no admin may make it another one, from a
// backup. He proves that he knows the code as for a claim, and gets a ticket for this
// alone, which lives in RAM and is good for some minutes: nothing of the gateway has
// changed then, and the code stays good.

const (
	ticketStart = "halo-restore-"
	ticketLife  = 30 * time.Minute // links are slow, and a file may turn out to be the wrong one
	maxTickets  = 16
	kindClaim   = "claim"
)

// tickets are those that are good.
type tickets struct {
	now func() time.Time // monotonic

	mu   sync.Mutex // guards what follows
	good map[[sha256.Size]byte]time.Time
}

func newTickets() *tickets {
	return &tickets{now: time.Now, good: map[[sha256.Size]byte]time.Time{}}
}

func (t *tickets) issue() string {
	ticket := newSecret(ticketStart)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	var oldest [sha256.Size]byte
	for k, until := range t.good {
		if now.After(until) {
			delete(t.good, k)
		} else if t.good[oldest].IsZero() || until.Before(t.good[oldest]) {
			oldest = k
		}
	}
	if len(t.good) >= maxTickets {
		delete(t.good, oldest)
	}
	t.good[sha256.Sum256([]byte(ticket))] = now.Add(ticketLife)
	return ticket
}

func (t *tickets) has(ticket string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, ok := t.good[sha256.Sum256([]byte(ticket))]
	return ok && t.now().Before(until)
}

// end ends all.
func (t *tickets) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.good)
}

// restorer is who holds a ticket.
func (s *Service) restorer(ticket string) (Principal, error) {
	if !s.tickets.has(ticket) {
		return Principal{}, unauthorized("the ticket for a restore has ended; prove the claim code again")
	}
	return Principal{Kind: kindClaim, Name: "restore", Scopes: []string{apitype.ScopeRestore}}, nil
}

// ticket is the answer to a proof of the claim code that asks for a restore.
func (s *Service) ticket(remote netip.Addr) apitype.ClaimAnswer {
	s.events.Add("auth.restore.allowed", model.Info, "", "somebody who knows the claim code may restore a backup here", map[string]string{"remote": remote.String()})
	return apitype.ClaimAnswer{RestoreTicket: s.tickets.issue()}
}
