package auth

import (
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/model/apitype"
)

const (
	freeFailures  = 5               // before waiting begins
	freeOfLink    = 50              // of all hosts on one link
	firstWait     = 2 * time.Second // doubled with each further failure
	longestWait   = 5 * time.Minute
	forgetAfter   = 15 * time.Minute // without a failure; of a link: since the first
	maxRemembered = 4096

	// of one user, from one address, that logs in; of one who refreshes his tokens
	successBurst = 60
	successEvery = 30 * time.Second // then
)

// limiter makes repeated failures slow: after five, each further one doubles a
// waiting time during which attempts are refused unheard. It counts by who
// tries (address, and address with user name), never by user name alone, so
// that a stranger cannot lock the admin out. Nor can he from the same link: what
// all of its hosts have free in a quarter of an hour is more than one of them
// comes to in that time, who has to wait.
type limiter struct {
	now func() time.Time // monotonic: a step of the wall clock must not open or close it

	mu    sync.Mutex // guards what follows
	seen  map[string]*failures
	paces map[string]*rate.Limiter // of what succeeds
}

type failures struct {
	count       int
	first, last time.Time
	until       time.Time
}

// counter is what failures are counted by.
type counter struct {
	key  string
	link bool // of all hosts on one
}

// counters are those of a host that tries something: its own; and where it may take as many
// addresses as it likes, one that it has together with all others on its link.
func counters(what string, remote netip.Addr) []counter {
	own, all := ShareKey(remote), RemoteKey(remote)
	list := []counter{{key: what + " " + own}}
	if all != own {
		list = append(list, counter{key: what + " " + all, link: true})
	}
	return list
}

func newLimiter() *limiter {
	return &limiter{now: time.Now, seen: map[string]*failures{}, paces: map[string]*rate.Limiter{}}
}

// RemoteKey is what has all addresses that one host may have: an IPv4 address, or an IPv6 /64.
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

// ShareKey is what one host's share of something is counted by, or its failures.
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
func (l *limiter) allow(by ...counter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, k := range by {
		if f := l.seen[k.key]; f != nil && now.Before(f.until) {
			wait := f.until.Sub(now)
			return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited,
				"too many failed attempts; try again in %s", wait.Round(time.Second)).After(wait)
		}
	}
	return nil
}

// fail counts a failure and returns how many there were in a row.
func (l *limiter) fail(by ...counter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, most := l.now(), 0
	for _, k := range by {
		f, free := l.seen[k.key], freeFailures
		if k.link {
			free = freeOfLink
		}
		if f == nil || now.Sub(f.last) > forgetAfter || k.link && now.Sub(f.first) > forgetAfter {
			if f == nil && len(l.seen) >= maxRemembered {
				l.forget(now)
			}
			f = &failures{first: now}
			l.seen[k.key] = f
		}
		f.count++
		f.last = now
		if over := f.count - free; over >= 0 {
			f.until = now.Add(min(firstWait<<min(over, 16), longestWait))
		}
		most = max(most, f.count)
	}
	return most
}

// succeed forgets these failures, but not those of a link: that one host has a password is
// no excuse for others.
func (l *limiter) succeed(by ...counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range by {
		if !k.link {
			delete(l.seen, k.key)
		}
	}
}

// pace returns nil or the problem "rate-limited" for what would succeed: it is a row, a
// write to the card and mostly a record in the audit log, however right the password is.
func (l *limiter) pace(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	p := l.paces[key]
	if p == nil {
		if len(l.paces) >= maxRemembered {
			maps.DeleteFunc(l.paces, func(_ string, p *rate.Limiter) bool { return p.TokensAt(now) >= successBurst })
		}
		p = rate.NewLimiter(rate.Every(successEvery), successBurst)
		l.paces[key] = p
	}
	turn := p.ReserveN(now, 1)
	wait := turn.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	turn.CancelAt(now)
	return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited,
		"expected at most one every %s after %d at once; an access token is good for %s", successEvery, successBurst, accessLife).After(wait)
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
