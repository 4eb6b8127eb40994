package agent_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent"
	"halo.internal/agent/power"
	"halo.internal/agent/sensors"
	"halo.internal/agent/spool"
	"halo.internal/lab/chips"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// TestAnEmptyBatteryNeedsNoHaloMesh: a device whose halo-mesh never answers knows neither who
// it is nor what time it is. It goes by its meter from the start, ends in order before its
// battery does, and what there is to tell waits.
func TestAnEmptyBatteryNeedsNoHaloMesh(t *testing.T) {
	root, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	meter, wires := chips.NewINA219(0.1, 8, -0.4), chips.NewBus()
	wires.Attach(0x42, meter)
	said := paths.Dir(filepath.Join(root, paths.State)).File(paths.SensorsFile)
	if err := os.MkdirAll(filepath.Dir(said), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(said, []byte(`[{"bus": "1000.i2c", "address": 66, "chip": "waveshare-ups-hat", "label": "ups", "assigned": true}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		off := make(chan struct{}, 1)
		u, err := agent.NewUnknown(agent.Config{Root: root, Role: model.RoleNode, BootID: "b", Log: quiet, Buses: busesOf(wires)}, func(ctx context.Context) error {
			off <- struct{}{}
			<-ctx.Done()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { done <- u.Run(ctx) }()
		time.Sleep(power.DefaultHold + time.Minute)
		if st := u.Power(); st.Source != model.PowerBattery || st.Percent == nil || *st.Percent < 80 || st.Low || len(off) > 0 {
			t.Errorf("on a battery that is almost full: %+v, turned off %d times", st, len(off))
		}
		meter.Set(6, -0.4)
		time.Sleep(3 * time.Minute) // the meter is read twice a minute
		select {
		case <-off:
		default:
			t.Errorf("it was not turned off: %+v", u.Power())
		}
		cancel()
		if <-done {
			t.Error("it knows whose it is, without halo-mesh")
		}
		told, err := spool.Open(spool.Options{
			Live: filepath.Join(root, "live"), Disk: filepath.Join(root, "disk"), Boot: 1, Owner: spool.Owner{Network: "valley", Node: "n-a"}, Budget: 1 << 20, Delay: time.Minute,
			Clock: func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockGateway }, Log: quiet,
		})
		if err == nil {
			err = u.Tell(told)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{sensors.EventFound, power.EventBattery, power.EventLow, power.EventShutdown} {
			if !slices.ContainsFunc(told.Items(), func(i spool.Item) bool { return strings.Contains(string(i.Data), kind) }) {
				t.Errorf("%s has not waited until somebody knew who the node is", kind)
			}
		}
	})
}
