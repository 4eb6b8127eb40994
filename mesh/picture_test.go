package mesh

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/local"
	"halo.internal/mesh/api"
	"halo.internal/model"
)

// TestAPictureIsThereWhileTheKernelHangs: whoever asks gets what was seen after he had
// asked, and while that cannot be seen, what was seen before, in time.
func TestAPictureIsThereWhileTheKernelHangs(t *testing.T) {
	if pictureWait+500*time.Millisecond > local.AnswerWait || kernelHangs+2*time.Second > 5*time.Second {
		t.Errorf("waits of %s and %s: an answer has %s, and what hangs has to be named after 5 s", pictureWait, kernelHangs, local.AnswerWait)
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards what follows
		seen, takes, looks := "nothing", time.Duration(0), 0
		from := func(long time.Duration, sees string) {
			mu.Lock()
			defer mu.Unlock()
			takes, seen = long, sees
		}
		looked := func(want int) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if looks != want {
				t.Errorf("it was looked %d times, want %d", looks, want)
			}
		}
		p := newPicture(pictureWait, func() string {
			mu.Lock()
			looks++
			v, d := seen, takes
			mu.Unlock()
			time.Sleep(d) // the kernel's time
			return v
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.run(ctx) }()
		get := func(want string, wantAge, wantTook time.Duration) {
			t.Helper()
			began := time.Now()
			v, age, ok := p.get(t.Context())
			if took := time.Since(began); !ok || v != want || age != wantAge || took != wantTook {
				t.Errorf("got %q, %s old, %v, after %s, want %q, %s old, after %s", v, age, ok, took, want, wantAge, wantTook)
			}
		}

		// The first has to be waited for, but for no longer than whoever asks does.
		from(time.Minute, "nothing")
		brief, done := context.WithTimeout(t.Context(), local.AnswerWait)
		if _, _, ok := p.get(brief); ok {
			t.Error("there is a picture before anybody has looked")
		}
		done()
		time.Sleep(2 * time.Minute)

		from(time.Second, "a peer")
		get("a peer", 0, time.Second)
		looked(2)

		// It hangs: what was seen before is there, and grows old.
		from(time.Hour, "two peers")
		get("a peer", time.Second+pictureWait, pictureWait)
		time.Sleep(time.Minute)
		get("a peer", time.Second+time.Minute+2*pictureWait, pictureWait)
		looked(3)
		from(time.Second, "three peers")
		time.Sleep(2 * time.Hour) // with whom had asked meanwhile
		looked(4)
		get("three peers", 0, time.Second)

		// Who asks while it is looked waits for the next look: this one may have seen what
		// he has changed as it was before.
		from(500*time.Millisecond, "three peers")
		before := make(chan string)
		go func() {
			v, _, _ := p.get(t.Context())
			before <- v
		}()
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		get("three peers", 0, 900*time.Millisecond)
		<-before
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestNobodyIsSentAfterAKernelThatHangs: what would be asked of it is refused, and not even
// the underlay, of which there is none here, hears of it.
func TestNobodyIsSentAfterAKernelThatHangs(t *testing.T) {
	m := &core{}
	for name, ask := range map[string]func() error{
		"interfaces": func() error { _, err := m.Interfaces(); return err },
		"neighbours": func() error { _, err := m.NeighbourTable(); return err },
		"clients":    func() error { _, err := m.clients(nil, false); return err },
		"batman":     func() error { _, err := m.batman(model.BatmanOriginators, nil); return err },
		"topology":   func() error { _, err := m.topology(nil); return err },
		"channels":   func() error { _, err := m.Channels(); return err },
		"legal":      func() error { _, err := m.Legal(); return err },
	} {
		t.Run(name, func(t *testing.T) {
			m.silent.Store(int64(kernelHangs))
			if err := ask(); !errors.Is(err, api.ErrBusy) {
				t.Errorf("got %v, want it to be refused", err)
			}
		})
	}
	m.silent.Store(int64(kernelHangs - 1))
	if err := m.answers(); err != nil {
		t.Errorf("a kernel that is slow: %v", err)
	}
}
