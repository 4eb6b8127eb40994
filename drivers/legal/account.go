package legal

import (
	"fmt"
	"sync"
	"time"
)

// Window is the time over which a duty cycle counts.
const Window = time.Hour

// slots is in how many parts Window is counted. A part counts as a whole until
// all of it is older than Window, so that an account errs on the strict side by
// a minute.
const slots = 60

// Account keeps the airtime that a duty cycle leaves, over the last hour at any
// time. Its methods may be called from any goroutine. An account that begins
// anew knows nothing of what was sent before: a process that restarts calls
// Charge with what it cannot account for.
type Account struct {
	budget time.Duration

	mu    sync.Mutex // guards what follows
	began time.Time  // of the first slot's time
	last  int64      // number of the newest slot
	spent [slots + 1]time.Duration
}

// NewAccount returns an account for a duty cycle, with nothing spent at now.
func NewAccount(d DutyCycle, now time.Time) *Account {
	return &Account{budget: Window / time.Duration(Always) * time.Duration(d), began: now}
}

// Budget returns the airtime of an hour.
func (a *Account) Budget() time.Duration { return a.budget }

// Charge counts airtime that was sent, whether it was allowed or not: what
// drivers send by themselves, and the counters of a survey.
func (a *Account) Charge(now time.Time, airtime time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forward(now)
	a.spent[a.last%int64(len(a.spent))] += max(airtime, 0)
}

// Reserve counts airtime that is to be sent. When there is not so much left it
// counts nothing: the error wraps ErrRefused and says when there will be.
func (a *Account) Reserve(now time.Time, airtime time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forward(now)
	airtime = max(airtime, 0)
	left := a.left()
	if airtime <= left {
		a.spent[a.last%int64(len(a.spent))] += airtime
		return nil
	}
	if airtime > a.budget {
		return fmt.Errorf("%w: %s of airtime, more than the %s that an hour has", ErrRefused, airtime, a.budget)
	}
	// The oldest is forgotten first.
	const slot = Window / slots
	for n := a.last - slots; n <= a.last; n++ {
		if n >= 0 {
			left += a.spent[n%int64(len(a.spent))]
		}
		if left >= airtime {
			at := a.began.Add(time.Duration(n+slots+1) * slot)
			return fmt.Errorf("%w: %s of airtime, of which the duty cycle leaves %s; wait %s", ErrRefused, airtime, max(a.left(), 0), at.Sub(now).Round(time.Second))
		}
	}
	return fmt.Errorf("%w: %s of airtime, of which the duty cycle leaves nothing for an hour", ErrRefused, airtime)
}

// Left returns what may still be sent; it is negative when more was sent than
// allowed.
func (a *Account) Left(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forward(now)
	return a.left()
}

func (a *Account) left() time.Duration {
	left := a.budget
	for _, s := range a.spent {
		left -= s
	}
	return left
}

// forward forgets what is older than Window. A clock that goes back forgets
// nothing.
func (a *Account) forward(now time.Time) {
	n := int64(now.Sub(a.began) / (Window / slots))
	if n-a.last > slots {
		clear(a.spent[:])
		a.last = n
	}
	for a.last < n {
		a.last++
		a.spent[a.last%int64(len(a.spent))] = 0
	}
}
