package mesh

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/events"
	"halo.internal/model"
)

// stopped is a clock that no battery keeps.
type stopped struct{}

func (stopped) Now() time.Time          { return time.Now() }
func (stopped) Set(time.Time) error     { return nil }
func (stopped) RTC() (time.Time, error) { return time.Time{}, errors.New("there is none") }

// mute is a socket on which nobody answers; it counts what is sent.
type mute struct {
	sent chan struct{}
	done chan struct{}
}

func (m mute) Receive([]byte) (int, netip.Addr, error) {
	<-m.done
	return 0, netip.Addr{}, errors.New("closed")
}
func (m mute) Send([]byte, netip.Addr) error   { m.sent <- struct{}{}; return nil }
func (m mute) Watch(ctx context.Context) error { <-ctx.Done(); return nil }
func (m mute) Close() error                    { close(m.done); return nil }

// TestANodeAsksForTheTimeOnceTheGatewayKnowsIt: the gateway came back without a
// clock, answered so, and was given the time since. Nothing else would have the
// node ask for half an hour.
func TestANodeAsksForTheTimeOnceTheGatewayKnowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockNone }
		m := mute{make(chan struct{}, 100), make(chan struct{})}
		quiet := slog.New(slog.DiscardHandler)
		n := &node{
			core: &core{
				Config: Config{Log: quiet},
				clock:  clock.New(stopped{}, time.Now().AddDate(-1, 0, 0)),
				events: events.Open(filepath.Join(t.TempDir(), "events"), "n", 1, now, quiet),
			},
			joinNow: make(chan struct{}, 1), joinHurry: make(chan struct{}, 1), overlayNow: make(chan struct{}, 1),
		}
		network := identity.New()
		n.profiles = newNodeProfile(n, kept{})
		n.search = announce.NewNodeSide(announce.Config{
			Network: network.Public(), Key: identity.New(), Boot: 1, Log: quiet,
			Since: func() uint64 { return 1 }, Steps: func() uint32 { return 0 },
			Open: func() (announce.Socket, error) { return m, nil },
		}, make([]byte, 32), 0, n.hear)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.search.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(5 * time.Minute) // it asks once a minute by now
		asked := func(quality model.ClockQuality) int {
			synctest.Wait()
			before := len(m.sent)
			n.hear(announce.Heard{Gateway: announce.Gateway{Quality: quality}})
			synctest.Wait()
			return len(m.sent) - before
		}
		if got := asked(model.ClockNone); got != 0 {
			t.Errorf("asked %d times a gateway that knows no time", got)
		}
		if got := asked(model.ClockRTC); got != 1 {
			t.Errorf("asked %d times a gateway that knows the time, want once", got)
		}
		n.clock.Resume(clock.State{Quality: model.ClockGateway})
		if got := asked(model.ClockRTC); got != 0 {
			t.Errorf("asked %d times for what it knows", got)
		}
	})
}
