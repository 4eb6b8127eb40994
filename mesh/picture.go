package mesh

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/mesh/api"
	"halo.internal/model"
)

const (
	// pictureWait is for how long whoever asks for the status waits for one that is looked
	// at after he asked. It leaves time for the answer's way.
	pictureWait = local.AnswerWait - time.Second
	// kernelHangs is after how long the kernel counts as one that does not answer:
	// /health has to name that within 5 s.
	kernelHangs = 3 * time.Second
)

// picture is what was seen when it was looked at last, for those who cannot wait until
// it is looked at anew: what is asked of the kernel it answers under locks of its own,
// which it may hold for seconds, and a driver that hangs for ever.
type picture[T any] struct {
	look  func() T
	wait  time.Duration
	asked chan struct{}

	mu    sync.Mutex    // guards what follows
	next  chan struct{} // closed after a look that begins from now on
	began time.Time     // when the look that is under way did; zero: none is
	last  T
	at    time.Time // when that look began
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
		at := time.Now()
		p.mu.Lock()
		done := p.next
		p.next, p.began = make(chan struct{}), at
		p.mu.Unlock()
		v := p.look()
		p.mu.Lock()
		p.last, p.at, p.began = v, at, time.Time{}
		p.mu.Unlock()
		close(done)
	}
}

// hangs returns for how long the look that is under way has lasted.
func (p *picture[T]) hangs() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		return 0
	}
	return time.Since(p.began)
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
// as it was last.
func (m *core) Status(ctx context.Context, brief bool) (model.MeshStatus, error) {
	p := m.picture
	if brief {
		p = m.sketch
	}
	s, age, ok := p.get(ctx)
	switch {
	case !ok:
		return s, fmt.Errorf("status: %w: the kernel has not answered since halo-mesh started", ctx.Err())
	case age == 0:
		return s, nil
	}
	now, quality := m.clock.Now()
	s.Time, s.Clock, s.StaleMS = now.UTC(), quality, age.Milliseconds()
	return s, nil
}

// watchKernel has the health graph say whether the kernel answers, until ctx ends. Whoever
// asks for the status seldom needs it for that, so that it is asked for one interface
// here: under the lock that what hangs in a driver mostly holds.
func (m *core) watchKernel(ctx context.Context) error {
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil { // no reason to end what works
		m.graph.Set(checkKernel, health.Degraded, "nobody watches whether the kernel answers: "+err.Error())
		return nil
	}
	defer kernel.Close()
	const loopback = 1 // the index of lo in each namespace
	ask := newPicture(pictureWait, func() error {
		_, err := kernel.LinkByIndex(loopback)
		return err
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ask.run(ctx) })
	g.Go(func() error {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			wake(ask.asked)
			m.judgeKernel(max(ask.hangs(), m.picture.hangs(), m.sketch.hangs()))
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
	})
	return g.Wait()
}

// answers returns an error while the kernel is known not to answer: whoever asked it would
// wait for as long as it hangs, in a thread of the system's for each.
func (m *core) answers() error {
	if silent := time.Duration(m.silent.Load()); silent >= kernelHangs {
		return fmt.Errorf("%w: the kernel has not answered for %s what it is asked of interfaces, radios and routes: ask again when it does, or restart the device", api.ErrBusy, silent.Round(time.Second))
	}
	return nil
}

// judgeKernel tells of a kernel that has not answered for so long.
func (m *core) judgeKernel(silent time.Duration) {
	m.silent.Store(int64(silent))
	if silent < kernelHangs {
		m.graph.Set(checkKernel, health.OK, "")
		return
	}
	m.graph.Set(checkKernel, health.Degraded, fmt.Sprintf("the kernel has not answered for %s what it is asked of interfaces, radios and routes", silent.Round(time.Second)))
}
