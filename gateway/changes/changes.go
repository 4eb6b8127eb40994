// Package changes remembers in which order things changed, each by its key and once: what
// changed twice stands where it changed last. So whoever comes back after a while is told
// what to look at again, and not how often it has changed meanwhile.
package changes

import (
	"container/list"
	"sync"
)

// Log may be used from any goroutine. Its sequence numbers rise by one with each change, the
// first of which is 2: 1 is where nothing has changed yet, and 0 before that. They are those
// of this Log alone.
type Log[K comparable] struct {
	most int

	mu        sync.Mutex // guards what follows
	newest    uint64
	forgotten uint64     // the newest change of a key that is not remembered any more
	order     *list.List // of change[K], the oldest in front
	at        map[K]*list.Element
	bell      Bell
}

type change[K comparable] struct {
	key K
	seq uint64
}

// New returns a log of that many keys at most: beyond them those are forgotten that
// changed longest ago.
func New[K comparable](most int) *Log[K] {
	return &Log[K]{most: most, newest: 1, order: list.New(), at: map[K]*list.Element{}}
}

// Note notes that things have changed.
func (l *Log[K]) Note(keys ...K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		l.newest++
		if e := l.at[k]; e != nil {
			e.Value = change[K]{k, l.newest}
			l.order.MoveToBack(e)
			continue
		}
		l.at[k] = l.order.PushBack(change[K]{k, l.newest})
		if l.order.Len() > l.most {
			old := l.order.Remove(l.order.Front()).(change[K])
			l.forgotten = old.seq
			delete(l.at, old.key)
		}
	}
	if len(keys) > 0 {
		l.bell.Ring()
	}
}

// News returns the number of the newest change, and a channel that the next one closes.
func (l *Log[K]) News() (newest uint64, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest, l.bell.Next()
}

// Since returns the keys of what has changed after a change, the oldest first, and the
// number of the newest of them; whole is false when some are forgotten.
func (l *Log[K]) Since(after uint64) (keys []K, newest uint64, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after > l.newest || after < l.forgotten {
		return nil, l.newest, false
	}
	e := l.order.Back()
	for e != nil && e.Value.(change[K]).seq > after {
		e = e.Prev()
	}
	if e == nil {
		e = l.order.Front()
	} else {
		e = e.Next()
	}
	for ; e != nil; e = e.Next() {
		keys = append(keys, e.Value.(change[K]).key)
	}
	return keys, l.newest, true
}

// Bell tells any number of goroutines that something has happened. It costs nothing while
// nobody listens. Its owner's lock guards it.
type Bell struct{ next chan struct{} }

// Ring wakes all who wait.
func (b *Bell) Ring() {
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Next returns a channel that the next Ring closes.
func (b *Bell) Next() <-chan struct{} {
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}
