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
	newsAtOnce = 5 // events of what is bounded, and
	newsGap    = time.Minute
)

// book makes events of who comes and what they do: one for a visit, however much
// they look at in it, one for each thing that is more than looking. What costs who
// asks nothing is bounded, and an event tells how many there were since the last:
// strangers who are refused all together, since they can come from ever new
// addresses; what an operator may not do, and looks that tell much, by certificate,
// so that nobody's can be hidden among another's.
type book struct {
	event func(kind string, s model.Severity, message string, fields ...string)
	now   func() time.Time

	mu        sync.Mutex // guards what follows
	visits    map[visit]time.Time
	strangers *tally
	tallies   map[tallied]*tally
}

// tally counts what is told of a few times at once, and rarely after that.
type tally struct {
	news   *bucket
	untold int
	last   time.Time
}

func newTally() *tally { return &tally{news: newBucket(newsAtOnce, 1/newsGap.Seconds())} }

// count returns how many there were since the last that was told of, this one
// included, and whether to tell of them.
func (t *tally) count(now time.Time) (n int, tell bool) {
	t.last = now
	t.untold++
	n, tell = t.untold, t.news.take(now)
	if tell {
		t.untold = 0
	}
	return n, tell
}

// tallied is what is counted together: events of a kind, of one certificate.
type tallied struct {
	serial, epoch uint64
	kind          string
}

// visit is of one certificate from one address.
type visit struct {
	serial, epoch uint64
	remote        netip.Addr
}

func newBook(event func(kind string, s model.Severity, message string, fields ...string)) *book {
	return &book{event: event, now: time.Now, visits: map[visit]time.Time{}, strangers: newTally(), tallies: map[tallied]*tally{}}
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
func (b *book) used(c operator.Certificate, remote netip.Addr, to Route) {
	b.event(EventUsed, model.Info, fmt.Sprintf("%s %s asked this node for %s", c.Role, c.User, to.Pattern), append(fieldsOf(c, remote), "did", to.Pattern)...)
}

// looked notes that an operator has asked for what tells much.
func (b *book) looked(c operator.Certificate, remote netip.Addr, to Route) {
	if n, tell := b.count(c, EventUsed); tell {
		b.event(EventUsed, model.Info, fmt.Sprintf("%s %s asked this node for %s", c.Role, c.User, to.Pattern), append(fieldsOf(c, remote), "did", to.Pattern, "times", fmt.Sprint(n))...)
	}
}

// denied notes that an operator has asked for what the role may not.
func (b *book) denied(c operator.Certificate, remote netip.Addr, to Route) {
	if n, tell := b.count(c, EventDenied); tell {
		b.event(EventDenied, model.Warning, fmt.Sprintf("%s %s asked this node for %s, which needs the role %s", c.Role, c.User, to.Pattern, to.Role),
			append(fieldsOf(c, remote), "asked", to.Pattern, "needs", to.Role, "times", fmt.Sprint(n))...)
	}
}

// count counts an event of a certificate; see tally.
func (b *book) count(c operator.Certificate, kind string) (n int, tell bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, of := b.now(), tallied{c.Serial, c.Epoch, kind}
	t := b.tallies[of]
	if t == nil {
		if len(b.tallies) >= maxVisits {
			b.forget()
		}
		t = newTally()
		b.tallies[of] = t
	}
	return t.count(now)
}

// forget makes room: the tally that nothing was added to for longest goes.
func (b *book) forget() {
	var oldest tallied
	var at time.Time
	for of, t := range b.tallies {
		if at.IsZero() || t.last.Before(at) {
			oldest, at = of, t.last
		}
	}
	delete(b.tallies, oldest)
}

// refused notes that somebody was not let in, for the nth time in a row.
func (b *book) refused(remote netip.Addr, n int, err error) {
	b.mu.Lock()
	count, tell := b.strangers.count(b.now())
	b.mu.Unlock()
	if !tell {
		return
	}
	b.event(EventRefused, model.Warning, "somebody was not let in at this node's door: "+err.Error(),
		"remote", remote.String(), "in_a_row", fmt.Sprint(n), "failures", fmt.Sprint(count))
}
