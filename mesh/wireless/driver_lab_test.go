//go:build lab

package wireless_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// standIn lives as a driver does, with simulated radios; the law is that of HaLow.
type standIn struct {
	*wifi.Driver
	unlimited bool       // by any duty cycle
	mu        sync.Mutex // guards what follows
	refuses   error
}

func (s *standIn) Name() string { return "halow stand-in" }

func (s *standIn) Prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.refuses, s.Driver.Prepare())
}

func (s *standIn) set(err error) { s.mu.Lock(); defer s.mu.Unlock(); s.refuses = err }

func (s *standIn) Legal() legal.Answer {
	a := legal.HaLow(legal.S1G{Country: "DE", Number: 1})
	if s.unlimited {
		a.Duty = legal.Always
	}
	return a
}

func (s *standIn) Channel() (nl80211.Channel, error) {
	return nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}, nil
}

func (s *standIn) Parameters() string { return "radios=2 channels=1" }

func (s *standIn) Power() (legal.DBm, error) { return s.Legal().MaxEIRP, nil }

// nothing carries the mesh nowhere.
type nothing struct{}

func (nothing) Enslave(string) error { return nil }

// TestADriverOfHaLowsKind is refused, loaded, and taken away behind its back: its
// radios are members each time that they can be, by themselves, with Morse's way of
// peering and no more power than the law lets them.
func TestADriverOfHaLowsKind(t *testing.T) {
	s := newSky(t)
	const simulated = "mac80211_hwsim"
	release, err := module.Release()
	s.ok(err)
	l, err := module.NewLoader(filepath.Join(paths.ModulesDir, release), module.Running{}, nil)
	s.ok(err)
	t.Cleanup(func() { // as the other tests expect it
		s.ok(l.ForceUnload(context.Background(), simulated))
		s.ok(l.LoadWith(simulated, "radios=0"))
	})
	driver := &standIn{
		Driver:  wifi.New(wifi.Config{Module: simulated, Params: "radios=2 channels=1", Modules: l}),
		refuses: errors.New("firmware mm6108.bin is not in /lib/firmware/morse"),
	}
	var mu sync.Mutex
	var events []model.Event
	told := func(kind string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if !slices.ContainsFunc(events, func(e model.Event) bool { return e.Kind == kind }) {
				return fmt.Errorf("no event %s", kind)
			}
			return nil
		}
	}
	w := wireless.New(wireless.Config{
		Country: "DE", Mesh: bundle.Mesh{SSID: "valley", PSK: "a password of the lab", BeaconInterval: 100}, Carrier: nothing{},
		Notify: func(e model.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
			t.Logf("%s: %s", e.Kind, e.Message)
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	w.StandIn(simulated, driver)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	s.until("the refusal is told", told(wireless.EventDriverRefused))
	if list := w.List(); len(list) != 1 || !list[0].Absent || !strings.Contains(list[0].Detail, "refused: firmware mm6108.bin") {
		t.Errorf("refused: got %+v", list)
	}
	linked := func() error {
		list := w.List()
		for _, r := range list {
			if !r.Member || r.Linked() != 1 || r.TxPowerDBm != 16 || !strings.HasPrefix(r.HaLow, "S1G channel 1 ") {
				return fmt.Errorf("got %+v", list)
			}
		}
		if len(list) != 2 {
			return fmt.Errorf("got %+v", list)
		}
		return nil
	}
	driver.set(nil) // and hwsim is loaded already, as by an earlier process
	s.until("two radios are members and peers", linked)
	s.until("that is told", told(wireless.EventDriverLoaded))

	s.ok(l.ForceUnload(t.Context(), simulated))
	s.until("the driver is brought back", told(wireless.EventDriverRecovered))
	s.until("its radios are members and peers again", linked)
}
