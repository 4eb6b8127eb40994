package relay

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model"
)

// heard is when and what an overlay was given to send.
type heard struct {
	began time.Time
	at    []time.Duration
	last  []byte
	to    []netip.Addr
}

func (h *heard) send(msg []byte, to netip.Addr) error {
	h.at, h.last, h.to = append(h.at, time.Since(h.began)), msg, append(h.to, to)
	return nil
}

// TestNothingIsToldToNobody: what a phone wants that joins before wg0 is there is told
// when it is, with all repeats, also to one who has come back meanwhile.
func TestNothingIsToldToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Groups: model.MulticastGroups(), Kbit: 256, Log: slog.New(slog.DiscardHandler)})
		go r.tell(t.Context())
		away := member(2)
		away.Away = true
		r.Set(Wanted{Overlay: at(1), Clients: member(1).Clients, Members: []Member{away}})
		r.joined([]netip.Addr{sa.Addr()})
		r.Set(Wanted{Overlay: at(1), Clients: member(1).Clients, Members: []Member{member(2)}})
		time.Sleep(20 * time.Second)

		wg := &heard{began: time.Now()}
		r.reach(wg)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if !slices.Equal(wg.at, repeats[:]) || wg.to[0] != at(2) || !slices.Contains(parsed(t, wg.last).groups, sa) {
			t.Errorf("told after %v, to %v, want it after %v", wg.at, wg.to, repeats)
		}

		// Gone for a while in which nothing was to be told: nothing is repeated.
		r.reach(nil)
		time.Sleep(time.Second)
		r.reach(wg)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(wg.at) != len(repeats) {
			t.Errorf("told after %v, though nothing was missed", wg.at)
		}

		// A renewal was.
		r.reach(nil)
		time.Sleep(r.table.renew())
		again := &heard{began: time.Now()}
		r.reach(again)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if !slices.Equal(again.at, repeats[:]) {
			t.Errorf("told after %v, want it after %v", again.at, repeats)
		}
		r.reach(nil)
	})
}
