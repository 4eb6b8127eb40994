package auth

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"halo.internal/model/apitype"
)

const (
	freeFailures  = 5               // before waiting begins
	firstWait     = 2 * time.Second // doubled with each further failure
	longestWait   = 5 * time.Minute
	forgetAfter   = 15 * time.Minute // without a failure
	maxRemembered = 4096
)

// limiter makes repeated failures slow: after five, each further one doubles a
// waiting time during which attempts are refused unheard. It counts by who
// tries (address, and address with user name), never by user name alone, so
// that a stranger cannot lock the admin out.
type limiter struct {
	now func() time.Time // monotonic: a step of the wall clock must not open or close it

	mu   sync.Mutex // guards what follows
	seen map[string]*failures
}

type failures struct {
	count int
	last  time.Time
	until time.Time
}

func newLimiter() *limiter { return &limiter{now: time.Now, seen: map[string]*failures{}} }

// RemoteKey is what guesses of one host are counted by: an IPv4 address, or an IPv6 /64,
// since a host has all of that.
func RemoteKey(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is4() || !a.IsValid() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return p.String()
}

// ShareKey is what one host's share of something is counted by that it holds for a while.
// It is RemoteKey, but the whole address where many hosts are in one /64: the nodes of a
// network are in one of unique local addresses (RFC 4193), and all that are on a link in
// that of its own. A host there may take many, and is held to the bound of all alone.
func ShareKey(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() && (a.IsPrivate() || a.IsLinkLocalUnicast()) {
		return a.String()
	}
	return RemoteKey(a)
}

// allow returns nil or the problem "rate-limited".
func (l *limiter) allow(keys ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, k := range keys {
		if f := l.seen[k]; f != nil && now.Before(f.until) {
			wait := f.until.Sub(now)
			return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited,
				"too many failed attempts; try again in %s", wait.Round(time.Second)).After(wait)
		}
	}
	return nil
}

// fail counts a failure and returns how many there were in a row.
func (l *limiter) fail(keys ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, most := l.now(), 0
	for _, k := range keys {
		f := l.seen[k]
		if f == nil || now.Sub(f.last) > forgetAfter {
			if f == nil && len(l.seen) >= maxRemembered {
				l.forget(now)
			}
			f = &failures{}
			l.seen[k] = f
		}
		f.count++
		f.last = now
		if over := f.count - freeFailures; over >= 0 {
			f.until = now.Add(min(firstWait<<min(over, 16), longestWait))
		}
		most = max(most, f.count)
	}
	return most
}

// succeed forgets the failures of these keys.
func (l *limiter) succeed(keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		delete(l.seen, k)
	}
}

// forget makes room: what is old goes, and when nothing is, the oldest.
func (l *limiter) forget(now time.Time) {
	oldest := ""
	for k, f := range l.seen {
		if now.Sub(f.last) > forgetAfter {
			delete(l.seen, k)
		} else if oldest == "" || f.last.Before(l.seen[oldest].last) {
			oldest = k
		}
	}
	if len(l.seen) >= maxRemembered {
		delete(l.seen, oldest)
	}
}
