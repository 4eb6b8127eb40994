package radio

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/model"
)

// TestWhatIsRefusedIsNoFailure has a radio refused until it is told that the
// reason has changed: it is asked again and again, told of once for each reason,
// and its driver is not to blame.
func TestWhatIsRefusedIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		why, asked := errors.New("not allowed: 5260 MHz in DE"), 0
		var events []model.Event
		rs := NewRadios(RadiosConfig{
			Member: Config{MeshID: "valley", Notify: func(e model.Event) { mu.Lock(); events = append(events, e); mu.Unlock() }},
			Fit: func(r nl80211.Wiphy, c *Config) error {
				mu.Lock()
				defer mu.Unlock()
				if r.Index != 7 || c.Wiphy != 7 || c.Iface != "mesh0" || c.MeshID != "valley" {
					t.Errorf("asked of radio %d: %+v", r.Index, c)
				}
				asked++
				return why
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var owned sync.WaitGroup
		rs.reconcile(ctx, &owned, []nl80211.Wiphy{{Index: 7, Name: "phy7"}})
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		if asked < 100 || asked > 200 { // every 30 s
			t.Errorf("asked %d times in an hour", asked)
		}
		why = errors.New("not allowed: radar")
		mu.Unlock()
		if l := rs.List(); len(l) != 1 || l[0].Detail != "refused: not allowed: 5260 MHz in DE" || l[0].Failures != 0 || l[0].Iface != "mesh0" {
			t.Errorf("got %+v", l)
		}
		rs.Again(7)
		rs.Again(8) // gone meanwhile
		time.Sleep(time.Minute)
		cancel()
		owned.Wait()
		var refused []string
		for _, e := range events {
			if e.Kind == EventRefused {
				refused = append(refused, e.Fields["reason"])
			} else if e.Kind != EventFound {
				t.Errorf("event %+v", e)
			}
		}
		if len(refused) != 2 || refused[1] != "not allowed: radar" {
			t.Errorf("told of %q", refused)
		}
	})
}
