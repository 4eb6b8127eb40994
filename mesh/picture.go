package mesh

import (
	"context"
	"fmt"
	"sync"
	"time"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
)

const (
	// pictureWait is for how long whoever asks for the status waits for one that is looked
	// at after he asked. It leaves time for the answer's way.
	pictureWait = local.AnswerWait - time.Second
	// pictureOld is when a picture is so old that the kernel does not answer at all:
	// /health has to name that within 5 s.
	pictureOld = 4 * time.Second
)

// picture is what was seen when it was looked at last, for those who cannot wait until
// it is looked at anew: what is asked of the kernel it answers under locks of its own,
// which it may hold for seconds, and a driver that hangs for ever.
type picture[T any] struct {
	look  func() T
	wait  time.Duration
	asked chan struct{}

	mu   sync.Mutex    // guards what follows
	next chan struct{} // closed after a look that begins from now on
	last T
	at   time.Time // when that look began
}

func newPicture[T any](wait time.Duration, look func() T) *picture[T] {
	return &picture[T]{look: look, wait: wait, asked: make(chan struct{}, 1), next: make(chan struct{})}
}

// run looks whenever somebody has asked, until ctx ends.
func (p *picture[T]) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.asked:
		}
		p.mu.Lock()
		done := p.next
		p.next = make(chan struct{})
		p.mu.Unlock()
		at := time.Now()
		v := p.look()
		p.mu.Lock()
		p.last, p.at = v, at
		p.mu.Unlock()
		close(done)
	}
}

// get returns what is seen by a look that begins now, and 0; or what was seen last, and
// how long ago, where that look takes longer than the wait. The first has nothing to
// fall back on: ok is false where it takes longer than the wait and ctx ends.
func (p *picture[T]) get(ctx context.Context) (v T, age time.Duration, ok bool) {
	p.mu.Lock()
	done, first := p.next, p.at.IsZero()
	p.mu.Unlock()
	wake(p.asked)
	var late <-chan time.Time
	if !first {
		t := time.NewTimer(p.wait)
		defer t.Stop()
		late = t.C
	}
	fresh := false
	select {
	case <-done:
		fresh = true
	case <-late:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !fresh {
		age = time.Since(p.at)
	}
	return p.last, age, !p.at.IsZero()
}

// Status returns the status as it is now, or, where the kernel does not answer in time,
// as it was last. The health graph says so while that goes on.
func (m *core) Status(ctx context.Context) (model.MeshStatus, error) {
	s, age, ok := m.picture.get(ctx)
	switch {
	case !ok:
		return s, fmt.Errorf("status: %w: the kernel has not answered since halo-mesh started", ctx.Err())
	case age == 0:
		m.graph.Set(checkKernel, health.OK, "")
		return s, nil
	case age > pictureOld:
		m.graph.Set(checkKernel, health.Degraded, fmt.Sprintf("the kernel does not answer what it is asked of interfaces, radios and routes; what is known of them is %s old", age.Round(time.Second)))
	}
	now, quality := m.clock.Now()
	s.Time, s.Clock, s.StaleMS = now.UTC(), quality, age.Milliseconds()
	return s, nil
}
