package agent_test

import (
	"context"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/agent/sensors"
	"halo.internal/gateway/store"
	"halo.internal/lab/chips"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// playedWire is a bus with chips on it.
type playedWire struct{ *chips.Bus }

func (playedWire) Close() error { return nil }

func (w playedWire) Present(_ context.Context, inUse []uint16) ([]uint16, error) {
	there := []uint16{}
	used := map[uint16]bool{}
	for _, a := range inUse {
		used[a] = true
	}
	for a := uint16(8); a < 0x78; a++ {
		if !used[a] && w.Tx(a, nil, make([]byte, 1)) == nil {
			there = append(there, a)
		}
	}
	return there, nil
}

func playedBuses() func() ([]sensors.Bus, error) {
	b := chips.NewBus()
	b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
	b.Attach(0x23, chips.NewBH1750(100))
	return busesOf(b)
}

// busesOf lists one bus.
func busesOf(b *chips.Bus) func() ([]sensors.Bus, error) {
	return func() ([]sensors.Bus, error) {
		return []sensors.Bus{{Path: "1000.i2c", Name: "I2C1", Open: func() (sensors.Wire, error) { return playedWire{b}, nil }}}, nil
	}
}

// TestSensorsReachTheGateway: what is found is in the local status at once, and at the
// gateway as an inventory and an event.
func TestSensorsReachTheGateway(t *testing.T) {
	s := newSite(t)
	s.chips = true
	s.nextBoot()
	s.start()
	waitFor(t, "readings of the chip, and its inventory", func() bool {
		st, err := s.status()
		if err != nil || st.Inventory == nil || st.Power == nil || st.Power.Source != model.PowerUnknown {
			return false
		}
		read := false
		for _, r := range st.Readings {
			read = read || r.Metric == "i2c.bme280.temperature_c" && r.Value > 21 && r.Value < 22
		}
		return read && len(st.Inventory.Sensors) == 2 && len(st.Inventory.Buses) == 1
	})
	// The status, which names the inventory, is looked at every few seconds. What the gateway
	// has can be read while it is off.
	var v *model.Inventory
	for deadline := time.Now().Add(limit); v == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the inventory never came to the gateway")
		}
		s.drained()
		time.Sleep(3 * time.Second)
		s.stopGW()
		if v = s.inventory(); v == nil {
			s.startGateway()
		}
	}
	s.end(syscall.SIGTERM)
	if len(v.Sensors) != 2 || v.Sensors[1].Chip != "bme280" || v.Sensors[0].State != model.SensorOffered {
		t.Errorf("got %+v", v)
	}
	kinds := s.kinds()
	if kinds["sensor.found"] != 1 || kinds["sensor.offered"] != 1 {
		t.Errorf("events: got %v, want a chip found and one offered", kinds)
	}
}

// inventory is what the gateway has stored; nil: nothing yet.
func (s *site) inventory() *model.Inventory {
	s.t.Helper()
	db, _, err := store.OpenConfig(s.t.Context(), paths.Dir(s.data).File(paths.ConfigDB))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	var body string
	if err := db.Read().QueryRowContext(s.t.Context(), "SELECT body FROM inventories").Scan(&body); err != nil {
		return nil
	}
	var v model.Inventory
	if err := json.NewDecoder(strings.NewReader(body)).Decode(&v); err != nil {
		s.t.Error(err)
	}
	return &v
}
