package door

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"halo.internal/identity/operator"
	"halo.internal/model"
)

const (
	visitEnds  = 10 * time.Minute // without a request: the next one is another visit
	maxVisits  = 64
	newsAtOnce = 5 // events of refusals, and
	newsGap    = time.Minute
)

// book makes events of who comes and what they do: one for a visit, however much
// they look at in it, one for each thing that is more than looking. Refusals are
// bounded all together, since whoever is refused can come from ever new
// addresses: an event tells how many there were since the last.
type book struct {
	event func(kind string, s model.Severity, message string, fields ...string)
	now   func() time.Time

	mu     sync.Mutex // guards what follows
	visits map[visit]time.Time
	news   *bucket
	untold int
}

// visit is of one certificate from one address.
type visit struct {
	serial, epoch uint64
	remote        netip.Addr
}

func newBook(event func(kind string, s model.Severity, message string, fields ...string)) *book {
	return &book{event: event, now: time.Now, visits: map[visit]time.Time{}, news: newBucket(newsAtOnce, 1/newsGap.Seconds())}
}

func fieldsOf(c operator.Certificate, remote netip.Addr) []string {
	return []string{"user", c.User, "role", c.Role, "serial", fmt.Sprint(c.Serial), "remote", remote.String()}
}

// came notes a request of an operator.
func (b *book) came(c operator.Certificate, remote netip.Addr) {
	if b.isNew(visit{c.Serial, c.Epoch, remote}) {
		b.event(EventOpened, model.Info, fmt.Sprintf("%s %s has come in at this node's door", c.Role, c.User), fieldsOf(c, remote)...)
	}
}

func (b *book) isNew(v visit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	last, ok := b.visits[v]
	if !ok && len(b.visits) >= maxVisits {
		b.tidy(now)
	}
	b.visits[v] = now
	return !ok || now.Sub(last) > visitEnds
}

// tidy makes room: visits that are over go, and when there are none, the oldest.
func (b *book) tidy(now time.Time) {
	var oldest visit
	at := now
	for v, last := range b.visits {
		if now.Sub(last) > visitEnds {
			delete(b.visits, v)
		} else if !last.After(at) {
			oldest, at = v, last
		}
	}
	if len(b.visits) >= maxVisits {
		delete(b.visits, oldest)
	}
}

// used notes that an operator has done something.
func (b *book) used(c operator.Certificate, remote netip.Addr, what string) {
	b.event(EventUsed, model.Info, fmt.Sprintf("%s %s asked this node for %s", c.Role, c.User, what), append(fieldsOf(c, remote), "did", what)...)
}

// refused notes that somebody was not let in, for the nth time in a row.
func (b *book) refused(remote netip.Addr, n int, err error) {
	b.mu.Lock()
	b.untold++
	told := b.news.take(b.now())
	count := b.untold
	if told {
		b.untold = 0
	}
	b.mu.Unlock()
	if !told {
		return
	}
	b.event(EventRefused, model.Warning, "somebody was not let in at this node's door: "+err.Error(),
		"remote", remote.String(), "in_a_row", fmt.Sprint(n), "failures", fmt.Sprint(count))
}
