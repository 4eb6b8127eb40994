package console

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errIdle ends a session that nobody touches.
var errIdle = errors.New("nobody has pressed a key")

const (
	keyInterrupt = 3       // Ctrl-C
	keyEnd       = 5       // Ctrl-E, to the end of the line
	keyErase     = 21      // Ctrl-U, all before
	maxAhead     = 4 << 10 // octets typed before somebody reads them
)

// keys is what is typed at a terminal, read in a goroutine of its own, so that
// reading can be given up and a command interrupted.
type keys struct {
	changed chan struct{} // has a value when there is something to look at

	mu        sync.Mutex // guards what follows
	typed     []byte
	err       error // of the terminal
	interrupt func()
	idle      time.Duration // 0: for ever
	last      time.Time     // a key was pressed
	ctx       context.Context
	timer     *time.Timer // ends a command that nobody watches
	wasIdle   bool
}

func newKeys() *keys {
	return &keys{changed: make(chan struct{}, 1), last: time.Now(), ctx: context.Background()}
}

func (k *keys) wake() {
	select {
	case k.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// pump reads the terminal until it fails.
func (k *keys) pump(r io.Reader) {
	b := make([]byte, 256)
	for {
		n, err := r.Read(b)
		k.feed(b[:n], err)
		if err != nil {
			return
		}
	}
}

func (k *keys) feed(b []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(b) > 0 {
		k.last = time.Now()
		if k.timer != nil {
			k.timer.Reset(k.idle)
		}
	}
	for _, c := range b {
		switch {
		case c == keyInterrupt && k.interrupt != nil:
			k.interrupt()
		case c == keyInterrupt:
			k.typed = append(k.typed, keyEnd, keyErase) // what x/term takes for the end, but people for another line
		case len(k.typed) < maxAhead:
			k.typed = append(k.typed, c)
		}
	}
	k.err = err
	k.wake()
}

// Read implements io.Reader. It ends with errIdle when nobody types for too long.
func (k *keys) Read(p []byte) (int, error) {
	for {
		k.mu.Lock()
		n := copy(p, k.typed)
		k.typed = k.typed[n:]
		err, ctx := k.err, k.ctx
		var wait time.Duration
		if k.idle > 0 {
			if wait = time.Until(k.last.Add(k.idle)); wait <= 0 {
				k.wasIdle = true
			}
		}
		idle := k.wasIdle
		k.mu.Unlock()
		switch {
		case n > 0:
			return n, nil
		case err != nil:
			return 0, err
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case idle:
			return 0, errIdle
		}
		k.wait(ctx, wait)
	}
}

// wait returns when there is something to look at, or after that time; 0 is for
// ever.
func (k *keys) wait(ctx context.Context, d time.Duration) {
	var end <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		end = t.C
	}
	select {
	case <-ctx.Done():
	case <-k.changed:
	case <-end:
	}
}

// patience sets for how long nobody may type from now on; 0 is for ever. Reading
// ends with ctx.
func (k *keys) patience(ctx context.Context, idle time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ctx, k.idle, k.last, k.wasIdle = ctx, idle, time.Now(), false
}

// interrupts has Ctrl-C, and nobody's typing for too long, call cancel; nil ends
// that.
func (k *keys) interrupts(cancel func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
	k.interrupt = cancel
	if cancel != nil && k.idle > 0 {
		k.timer = time.AfterFunc(time.Until(k.last.Add(k.idle)), func() {
			k.mu.Lock()
			k.wasIdle = true
			k.mu.Unlock()
			cancel()
			k.wake()
		})
	}
}

func (k *keys) isIdle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wasIdle
}

func (k *keys) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}
