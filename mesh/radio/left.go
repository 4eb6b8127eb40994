package radio

import (
	"context"
	"errors"
	"sync"
	"time"

	"halo.internal/mesh/apart"
)

// ErrHangs is of a radio for which a call into the kernel does not come back: nobody
// can end it. It may when its driver is loaded anew, or else when the machine restarts.
var ErrHangs = errors.New("its driver hangs in the kernel")

// Left is what was left behind for radios, since it hangs in the kernel. All Radios of
// a process have one in common, so that nobody is sent after what hangs there: he would
// hang as well, and hold the lock of all network interfaces meanwhile (nl80211_pre_doit,
// net/wireless/nl80211.c, waits for the radio's lock under that one). The zero value is
// ready.
type Left struct {
	mu sync.Mutex
	by map[int]*leftBehind // by wiphy, of which the kernel gives no index twice
}

type leftBehind struct {
	radio string // its name
	iface string // which it makes; empty: none
	since time.Time
	ended chan struct{} // closed when it comes back
}

// Hung is a radio of which something hangs in the kernel.
type Hung struct {
	Radio string
	For   time.Duration // since it was left behind
}

// List returns the radios of which something hangs.
func (l *Left) List() (all []Hung) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.by {
		all = append(all, Hung{b.radio, time.Since(b.since)})
	}
	return all
}

// of returns what was left behind of a radio, or nil.
func (l *Left) of(wiphy int) *leftBehind {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[wiphy]
}

// ifaces returns the interfaces that may come to be, or be there, at any time.
func (l *Left) ifaces() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := map[string]bool{}
	for _, b := range l.by {
		names[b.iface] = true
	}
	return names
}

// run waits until nothing is left behind of a radio, runs f and returns true when it is
// done. It is false soon after ctx has ended: f has not begun then, or it is left
// behind, after abandon was called.
func (l *Left) run(ctx context.Context, wiphy int, radio, iface string, abandon func(), f func()) bool {
	if before := l.of(wiphy); before != nil {
		select {
		case <-before.ended:
		case <-ctx.Done():
			return false
		}
	}
	mine := &leftBehind{radio: radio, iface: iface, ended: make(chan struct{})}
	go func() {
		defer func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.by[wiphy] == mine {
				delete(l.by, wiphy)
			}
			close(mine.ended)
		}()
		f()
	}()
	if apart.Await(ctx, mine.ended) {
		return true
	}
	if !l.add(wiphy, mine) {
		return true
	}
	abandon()
	return false
}

// add notes what is left behind, unless it has ended meanwhile.
func (l *Left) add(wiphy int, b *leftBehind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-b.ended:
		return false
	default:
	}
	if l.by == nil {
		l.by = map[int]*leftBehind{}
	}
	b.since = time.Now()
	l.by[wiphy] = b
	return true
}
