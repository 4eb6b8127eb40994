package live

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"halo.internal/gateway/changes"
	"halo.internal/model"
)

// Watched is a source that has to be told whether anybody wants to hear of it.
type Watched interface {
	Source
	// Watch is called with 1 for each new subscription, and with -1 for each that has ended.
	Watch(by int)
}

// Recoveries tells of how the gateway recovers. halo-mesh says how it is when it is asked,
// which is done while somebody wants to know.
type Recoveries struct {
	keyed[model.Recovery]
	ask   func(ctx context.Context) ([]model.Recovery, error)
	every time.Duration
	kick  chan struct{}

	mu      sync.Mutex // guards what follows
	watched int
	now     []model.Recovery
}

var _ Watched = (*Recoveries)(nil)

const maxRecoveries = 256 // halo-mesh remembers fewer

// NewRecoveries returns a source that asks, at such intervals, for the recoveries that
// halo-mesh remembers, the oldest first. Run has to be running.
func NewRecoveries(every time.Duration, ask func(ctx context.Context) ([]model.Recovery, error)) *Recoveries {
	s := &Recoveries{ask: ask, every: every, kick: make(chan struct{}, 1)}
	s.keyed = keyed[model.Recovery]{log: changes.New[string](2 * maxRecoveries), one: s.one, page: s.page, id: recoveryID}
	return s
}

// recoveryID tells recoveries apart; halo-mesh has no IDs for them.
func recoveryID(r model.Recovery) string {
	return fmt.Sprintf("%d %d %s %s", r.Boot, r.BeganMS, r.Cause, r.Check)
}

// Watch implements Watched.
func (s *Recoveries) Watch(by int) {
	s.mu.Lock()
	s.watched += by
	s.mu.Unlock()
	if by > 0 {
		select {
		case s.kick <- struct{}{}:
		default: // it is about to look
		}
	}
}

// Run asks halo-mesh until ctx ends.
func (s *Recoveries) Run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.kick:
		}
		s.mu.Lock()
		watched := s.watched > 0
		s.mu.Unlock()
		if watched {
			s.look(ctx)
		}
	}
}

// look asks halo-mesh, and notes what has changed. What it said last stays while it does
// not answer; /health tells of that.
func (s *Recoveries) look(ctx context.Context) {
	list, err := s.ask(ctx)
	if err != nil {
		return
	}
	list = list[max(0, len(list)-maxRecoveries):]
	s.mu.Lock()
	defer s.mu.Unlock()
	was := map[string]model.Recovery{}
	for _, r := range s.now {
		was[recoveryID(r)] = r
	}
	var changed []string
	for _, r := range list {
		id := recoveryID(r)
		if old, ok := was[id]; !ok || !reflect.DeepEqual(old, r) {
			changed = append(changed, id)
		}
		delete(was, id)
	}
	for gone := range was {
		changed = append(changed, gone)
	}
	s.now = list
	s.log.Note(changed...)
}

func (s *Recoveries) one(_ context.Context, id string) (model.Recovery, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.now, func(r model.Recovery) bool { return recoveryID(r) == id })
	if i < 0 {
		return model.Recovery{}, false, nil
	}
	return s.now[i], true, nil
}

func (s *Recoveries) page(context.Context, string) ([]model.Recovery, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.now), "", nil
}
