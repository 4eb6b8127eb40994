package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// question is what an answer is kept under. Clients that validate get other
// records.
type question struct {
	name   string // canonical
	qtype  uint16
	do, cd bool
}

// Times of the cache.
const (
	maxTTL      = 24 * time.Hour
	maxNegative = 15 * time.Minute
	maxStale    = 24 * time.Hour  // RFC 8767, 5: one to three days
	staleTTL    = 30              // seconds that a client keeps a stale answer
	failureTTL  = 5 * time.Second // RFC 9520, 3.2; short, as links come back
)

// entry is an answer, or that there is none for now, or both: then the answer is
// stale. Ages are by the monotonic clock, since a board's time is corrected by
// years.
type entry struct {
	wire       []byte // the answer as a message; nil: none
	stored     time.Time
	ttl        time.Duration
	generation uint64 // of the upstream that gave it

	failed           time.Time
	failure          failure
	failedGeneration uint64
}

func (e entry) fresh(now time.Time, generation uint64) bool {
	return e.wire != nil && e.generation == generation && now.Sub(e.stored) < e.ttl
}

func (e entry) usable(now time.Time) bool {
	return e.wire != nil && now.Sub(e.stored) < e.ttl+maxStale
}

func (e entry) failing(now time.Time, generation uint64) bool {
	return !e.failed.IsZero() && e.failedGeneration == generation && now.Sub(e.failed) < failureTTL
}

// result reads the answer, with the seconds that are left of it.
func (e entry) result(now time.Time) (r result, ok bool) {
	var m dns.Msg
	if err := m.Unpack(e.wire); err != nil {
		return result{}, false
	}
	r = result{rcode: m.Rcode, answer: m.Answer, ns: m.Ns}
	ttl := uint32(staleTTL)
	if left := e.ttl - now.Sub(e.stored); left > 0 {
		ttl = uint32(left / time.Second)
	}
	for _, list := range [][]dns.RR{r.answer, r.ns} {
		for _, rr := range list {
			rr.Header().Ttl = ttl
		}
	}
	return r, true
}

// cache keeps what was asked last, within a bound of octets.
type cache struct {
	most int

	mu    sync.Mutex // guards what follows
	size  int
	order *list.List // of *kept, the latest asked in front
	kept  map[question]*list.Element
}

type kept struct {
	q question
	entry
}

// overhead is about what an entry takes beside its name and message.
const overhead = 400

func (k *kept) octets() int { return overhead + len(k.q.name) + len(k.wire) + len(k.failure.text) }

func newCache(most int) *cache {
	return &cache{most: most, order: list.New(), kept: make(map[question]*list.Element)}
}

func (c *cache) octets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// get returns what is kept, or the zero entry.
func (c *cache) get(q question) entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.kept[q]
	if !ok {
		return entry{}
	}
	c.order.MoveToFront(e)
	return e.Value.(*kept).entry
}

// change changes an entry, which is zero when there was none, and makes room
// for it.
func (c *cache) change(q question, f func(*entry)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &kept{q: q}
	if e, ok := c.kept[q]; ok {
		k.entry = e.Value.(*kept).entry
		c.drop(e)
	}
	f(&k.entry)
	if k.octets() > c.most/8 { // no one answer is worth an eighth of all others
		return
	}
	c.kept[q] = c.order.PushFront(k)
	c.size += k.octets()
	for c.size > c.most {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	k := c.order.Remove(e).(*kept)
	delete(c.kept, k.q)
	c.size -= k.octets()
}
