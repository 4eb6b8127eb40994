package radio

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
)

// rules is a kernel that has a database or not.
type rules struct {
	country  string // whose rules hold
	has      string // what the database has
	reread   string // what it has once it is read anew
	reload   error
	news     chan nl80211.Event
	asked    int
	reloaded int
}

func (r *rules) Regulatory() (nl80211.Regulatory, error) {
	return nl80211.Regulatory{Country: r.country}, nil
}

func (r *rules) SetCountry(country string) error {
	r.asked++
	if r.has == country {
		r.country = country
		r.news <- nl80211.RegulatoryChanged{Country: country}
	}
	return nil
}

func (r *rules) ReloadRegulatory() error {
	r.reloaded++
	r.has = r.reread
	return r.reload
}

func (r *rules) next(ctx context.Context) (nl80211.Event, error) {
	select {
	case e := <-r.news:
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestSetCountry(t *testing.T) {
	for name, tc := range map[string]struct {
		kernel          *rules
		asked, reloaded int
		err             error
	}{
		"it holds already":            {&rules{country: "DE"}, 0, 0, nil},
		"it is in the database":       {&rules{country: "00", has: "DE"}, 1, 0, nil},
		"the database came later":     {&rules{country: "00", reread: "DE"}, 2, 1, nil},
		"the database lacks it":       {&rules{country: "00", has: "US", reread: "US"}, 2, 1, ErrCountry},
		"there is no database at all": {&rules{country: "00", reload: unix.ENOENT}, 2, 1, unix.ENOENT},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.kernel.news = make(chan nl80211.Event, 1)
				start := time.Now()
				err := setCountry(t.Context(), tc.kernel, tc.kernel.next, "DE", 10*time.Second)
				if !errors.Is(err, tc.err) || tc.err != nil && !errors.Is(err, ErrCountry) {
					t.Errorf("got %v, want %v", err, tc.err)
				}
				if tc.kernel.asked != tc.asked || tc.kernel.reloaded != tc.reloaded || time.Since(start) > 10*time.Second {
					t.Errorf("asked %d times, reloaded %d times in %s", tc.kernel.asked, tc.kernel.reloaded, time.Since(start))
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := &rules{country: "00", news: make(chan nl80211.Event, 1)}
		if err := setCountry(ctx, r, r.next, "DE", 10*time.Second); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCountry) {
			t.Errorf("given up: got %v", err)
		}
		r.news <- nl80211.RegulatoryChanged{Country: "US"} // of another radio
		if err := setCountry(t.Context(), r, r.next, "DE", 10*time.Second); !errors.Is(err, ErrCountry) {
			t.Errorf("news of another radio: got %v", err)
		}
	})
}
