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

	"golang.org/x/sys/unix"

	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/lab/air/hwsim"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// swallow takes the place of the air and lets nothing out of it: no frame is
// delivered, and no radio learns what became of one, which is what a driver that
// has hung looks like. The driver forgets it when it is loaded anew.
func swallow(ctx context.Context, t *testing.T) {
	t.Helper()
	m, err := hwsim.OpenMedium(0)
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { m.Close() })
	go func() { // it ends with the medium
		for {
			if _, err := m.Next(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
		}
	}()
}

// TestAWedgedDriverIsLoadedAnew has a driver take frames and do nothing with them.
// Its radios are restarted, which does not help, and then it is loaded anew, which
// does. (Where a restart helps, scenario driver-wedged asks.)
func TestAWedgedDriverIsLoadedAnew(t *testing.T) {
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
	driver := &standIn{Driver: wifi.New(wifi.Config{Module: simulated, Params: "radios=2 channels=1", Modules: l}), unlimited: true}
	var mu sync.Mutex
	var events []model.Event
	told := func(kind string) (list []model.Event) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			if e.Kind == kind {
				list = append(list, e)
			}
		}
		return list
	}
	w := wireless.New(wireless.Config{
		Country: "DE", Mesh: bundle.Mesh{SSID: "valley", PSK: "a password of the lab"}, Carrier: nothing{}, // beacons as HaLow has them: a hung driver reports those that it drops
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
	linked := func() error {
		list := w.List()
		if len(list) != 2 || slices.ContainsFunc(list, func(r model.Radio) bool { return !r.Member || r.Linked() != 1 }) {
			return fmt.Errorf("got %+v", list)
		}
		return nil
	}
	s.until("two radios are members and peers", linked)

	swallow(ctx, t)
	s.until("the driver is brought back", func() error {
		if list := told(wireless.EventDriverRecovered); len(list) == 0 {
			return fmt.Errorf("events %+v", w.List())
		}
		return nil
	})
	restarts, recovered := told(wireless.EventRestarted), told(wireless.EventDriverRecovered)
	if len(restarts) < 2 || restarts[0].Fields["evidence"] != heal.Unreported.String() {
		t.Errorf("restarts: %+v", restarts)
	}
	if !strings.Contains(recovered[0].Fields["reason"], "says of none that it was sent") {
		t.Errorf("recovered: %+v", recovered)
	}
	s.until("its radios are members and peers again", linked)
	s.until("that is told", func() error {
		if n := len(told(wireless.EventHealed)); n == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	for _, r := range w.List() {
		if h := r.Healing; h == nil || h.Rung != "" || h.Reloads != 1 || h.Restarts == 0 || h.Searches == 0 {
			t.Errorf("radio %s: %+v", r.Name, h)
		}
	}
}
