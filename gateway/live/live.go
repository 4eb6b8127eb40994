// Package live tells people's programs what changes, over one WebSocket each: they
// subscribe to topics, and get what is new as soon as it is there.
//
// Nothing is queued for anybody. A topic's source remembers in which order things changed
// last, within a bound; each subscription remembers up to where it has told, and asks the
// source for the rest when the one before has been written. So a client that reads slowly
// gets each thing once, as it is by then, and what a client costs does not grow. One that
// was away goes on where it was, if the source still knows what came since; else it is
// told that there is a gap, and begins anew.
package live

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/changes"
	"halo.internal/model/apitype"
)

// Change is one thing that changed: as it is now, or the ID of one that is gone.
type Change struct {
	Item any
	Gone string
}

// Source is where a topic's changes come from. Its numbers are its own, and rise.
type Source interface {
	// News returns the number of the newest change, of what is at least 1, and a channel that the next one closes.
	News(ctx context.Context) (newest uint64, next <-chan struct{}, err error)
	// Since returns what changed after that change and a filter chooses, and up to which
	// change that is all; 0 is before all, no matter whether anything has changed, and gives
	// all that there is now. whole is false,
	// and the rest of no use, when some of what came since is not known any more. What is
	// newer may be in it.
	Since(ctx context.Context, f Filter, after uint64) (to uint64, whole bool, changes iter.Seq2[Change, error], err error)
}

// Filter is what a subscription chooses. What is empty chooses all.
type Filter struct {
	Nodes    []string // canonical IDs
	Metrics  []string // prefixes
	Kind     string   // prefix
	Severity string   // that and worse
}

// Topic is what can be subscribed to.
type Topic struct {
	Name   string
	Scope  string // that it needs
	Source Source
	// Log is true of what happens, and false of what is: of that, a new subscription gets
	// all that there is first.
	Log bool
	// Instance is what the source's numbers belong to: with another, they mean nothing. nil:
	// this process.
	Instance func() string
}

// Bounds of what clients may do.
const (
	maxClients       = 64
	maxOfOne         = 16 // login or API token
	maxSubscriptions = 16 // of a client
	maxRequest       = 16 << 10
	maxRequests      = 32          // at once
	requestEvery     = time.Second // one more
)

const (
	usualPause = 20 * time.Millisecond // between two messages of changes, unless a client asks for another
	lastWords  = 2 * time.Second
)

// times are how long things take.
type times struct {
	write time.Duration // for one message: 48 KiB at 20 kbit/s
	check time.Duration // between two looks whether the login still holds
	ping  time.Duration // between two, and for an answer
	retry time.Duration // when a source has failed
	mark  time.Duration // how often at is told where a filter chooses nothing
}

var usual = times{write: 20 * time.Second, check: 5 * time.Second, ping: 30 * time.Second, retry: 5 * time.Second, mark: 30 * time.Second}

// Config is what New needs.
type Config struct {
	Topics []Topic
	// Authenticate finds who presents a token; it is asked again while a client is there.
	Authenticate func(ctx context.Context, token string) (auth.Principal, error)
	// Node returns the canonical ID of a node by that or its name; an error is for clients.
	Node func(ctx context.Context, ref string) (string, error)
	Log  *slog.Logger
}

// Hub is where clients come to. Run has to be running.
type Hub struct {
	Config
	times
	instance string // of this process
	done     chan struct{}

	mu      sync.Mutex // guards what follows
	ended   bool
	clients map[*session]string // and whose they are
	bell    changes.Bell        // something is new in some topic
	open    sync.WaitGroup
}

// New returns a hub.
func New(c Config) *Hub {
	return &Hub{Config: c, times: usual, instance: rand.Text()[:8], done: make(chan struct{}), clients: map[*session]string{}}
}

// Run wakes clients when something is new, until ctx ends; then it takes leave of them.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, t := range h.Topics {
		wg.Go(func() { h.watch(ctx, t) })
	}
	<-ctx.Done()
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	close(h.done)
	wg.Wait()
	h.open.Wait() // each has lastWords
	return nil
}

// watch wakes all clients whenever a topic has something new.
func (h *Hub) watch(ctx context.Context, t Topic) {
	for ctx.Err() == nil {
		_, next, err := t.Source.News(ctx)
		h.wake() // after the look: what comes between it and the next one closes next
		var again <-chan time.Time
		if err != nil {
			again = time.After(h.retry)
		}
		select {
		case <-ctx.Done():
		case <-next:
		case <-again:
		}
	}
}

func (h *Hub) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bell.Ring()
}

// news returns a channel that is closed when there is something new in any topic.
func (h *Hub) news() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bell.Next()
}

// enter counts a client in, or says why it cannot be served.
func (h *Hub) enter(c *session, actor string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	same := 0
	for _, a := range h.clients {
		if a == actor {
			same++
		}
	}
	switch {
	case h.ended:
		return apitype.Refuse(http.StatusServiceUnavailable, "", "the gateway is stopping").After(5 * time.Second)
	case len(h.clients) >= maxClients || same >= maxOfOne:
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "there are %d live connections, %d of them of %s; expected at most %d and %d", len(h.clients), same, actor, maxClients, maxOfOne).After(10 * time.Second)
	}
	h.clients[c] = actor
	h.open.Add(1)
	return nil
}

func (h *Hub) leave(c *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
	h.open.Done()
}

// topic finds a topic that somebody may subscribe to.
func (h *Hub) topic(name string, p auth.Principal) (*Topic, error) {
	for i := range h.Topics {
		if t := &h.Topics[i]; t.Name == name {
			return t, p.Require(t.Scope)
		}
	}
	return nil, apitype.Refuse(http.StatusNotFound, "", "topic: expected one of those in hello, got %.40q", name)
}

// instanceOf returns what a topic's numbers belong to.
func (h *Hub) instanceOf(t *Topic) string {
	if t.Instance != nil {
		return t.Instance()
	}
	return h.instance
}

// token is how a client is told where it is in a topic.
func (h *Hub) token(t *Topic, at uint64) string { return fmt.Sprintf("%s.%d", h.instanceOf(t), at) }

// position reads a token; false: it is of another instance, or none.
func (h *Hub) position(t *Topic, token string) (at uint64, ok bool) {
	var instance string
	for i := range token {
		if token[i] == '.' {
			instance, token = token[:i], token[i+1:]
			break
		}
	}
	if instance != h.instanceOf(t) || token == "" || len(token) > 19 {
		return 0, false
	}
	for _, c := range token {
		if c < '0' || c > '9' {
			return 0, false
		}
		at = at*10 + uint64(c-'0')
	}
	return at, true
}
