package hardware

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/model"
)

// replaced has n-a tell of its sensors, and n-b take its place.
func (f *fixture) replaced(sensors ...model.SensorChip) {
	f.t.Helper()
	ctx := f.t.Context()
	if err := f.Report(ctx, "n-a", "of the lost card", model.Inventory{Sensors: sensors}); err != nil {
		f.t.Fatal(err)
	}
	if err := f.DB.Write(ctx, func(tx *sql.Tx) error { return f.Adopt(ctx, tx, "n-a", "n-b") }); err != nil {
		f.t.Fatal(err)
	}
	f.Adopted("n-a", "n-b")
}

// told has time pass, and checks what nodes are told then.
func (f *fixture) told(now time.Time, want ...string) {
	f.t.Helper()
	f.given = nil
	f.giveAll(f.t.Context(), now)
	if got := strings.Join(f.given, ", "); got != strings.Join(want, ", ") {
		f.t.Errorf("got %q, want %q", got, want)
	}
}

// comes has n-b tell of its bus.
func (f *fixture) comes(sensors []model.SensorChip, templates ...model.NodeTemplate) {
	f.t.Helper()
	v := model.Inventory{Buses: []model.SensorBus{{Path: "i2c.1"}}, Sensors: sensors, Templates: templates}
	if err := f.Report(f.t.Context(), "n-b", fmt.Sprint(v), v); err != nil {
		f.t.Fatal(err)
	}
}

// owes counts what is kept for nodes, on the card and in RAM.
func (f *fixture) owes(want int) {
	f.t.Helper()
	card, ram := 0, 0
	if err := f.DB.Read().QueryRowContext(f.t.Context(), `SELECT count(*) FROM sensor_assignments`).Scan(&card); err != nil {
		f.t.Fatal(err)
	}
	for _, of := range f.owed {
		ram += len(of)
	}
	if card != want || ram != want {
		f.t.Errorf("%d are kept, and %d known, want %d", card, ram, want)
	}
}

func assigned(addr uint16, name string) model.SensorChip {
	return model.SensorChip{Bus: "i2c.1", Address: addr, State: model.SensorOK, Chip: name, Title: "a chip", Label: name, Assigned: true, IntervalS: 5, Params: map[string]float64{"shunt_ohm": 0.01}}
}

// TestANodeInAnothersPlaceIsToldOfItsSensors: what people have said of those of the lost
// card, once it has the templates for them, until it knows.
func TestANodeInAnothersPlaceIsToldOfItsSensors(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	stored, err := f.PutTemplate(t.Context(), "odd", template1, "user:root", etag.Match{}, all)
	if err != nil {
		t.Fatal(err)
	}
	trimmed := assigned(0x44, "ina226")
	trimmed.Title, trimmed.Params = "", nil
	f.replaced(
		assigned(0x40, "ina219"), assigned(0x31, "odd"), chip(0x76), trimmed,
		model.SensorChip{Bus: "i2c.1", Address: 0x50, State: model.SensorIgnored, Assigned: true},
		model.SensorChip{Bus: "i2c.1", Address: 0x51, State: model.SensorFailed, Assigned: true}, // its template was gone
	)
	f.open()
	f.owes(3)
	f.told(now) // it was not there yet
	f.comes(nil)
	f.told(now, "n-b put-template odd")
	odd := model.NodeTemplate{Name: "odd", Digest: stored.Digest}
	f.comes(nil, odd)
	f.told(now, "n-b assign i2c.1-31 odd", "n-b assign i2c.1-40 ina219", "n-b assign i2c.1-50 none")
	f.comes([]model.SensorChip{assigned(0x40, "lm75"), {Bus: "i2c.1", Address: 0x50, State: model.SensorIgnored, Assigned: true}}, odd) // of one a person was faster
	f.told(now)
	f.owes(1)
	f.off = "n-b"
	f.comes(nil, odd)
	f.told(now.Add(2*tryAgain), "n-b assign i2c.1-31 odd")
	f.off = ""
	f.comes([]model.SensorChip{assigned(0x31, "odd")}, odd)
	f.told(now.Add(2 * tryAgain))
	f.owes(0)
}

// TestWhatIsToldOfASensorIsWhole, but for what cannot be known, and a person who says
// something else is the last to have said something.
func TestWhatIsToldOfASensorIsWhole(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.replaced(assigned(0x40, "ina219"), assigned(0x41, "ina219"))
	if err := f.Settle(t.Context(), "n-b", "i2c.1-41"); err != nil {
		t.Fatal(err)
	}
	f.comes(nil)
	f.told(now, "n-b assign i2c.1-40 ina219")
	if c := f.last; c.Label != "ina219" || c.IntervalS != 5 || c.Params["shunt_ohm"] != 0.01 {
		t.Errorf("it is told %+v", c)
	}
	// Its bus has gone: that is no reason to say it again.
	if err := f.Report(t.Context(), "n-b", "no bus", model.Inventory{}); err != nil {
		t.Fatal(err)
	}
	f.told(now.Add(2 * tryAgain))
	// It refuses, again and again.
	for i := 1; i < maxTries; i++ {
		f.comes(nil)
		f.told(now.Add(time.Duration(2*i+2)*tryAgain), "n-b assign i2c.1-40 ina219")
	}
	f.comes(nil)
	f.told(now.Add(100 * tryAgain))
	f.owes(0)
}

// TestWhatIsOwedIsBounded: few at once, in the place of a node that was never told either,
// and nothing for one that is no member.
func TestWhatIsOwedIsBounded(t *testing.T) {
	f := newFixture(t)
	ctx, now := t.Context(), time.Now()
	var many []model.SensorChip
	for i := range uint16(atOnce + 2) {
		many = append(many, assigned(0x40+i, fmt.Sprintf("ina%d", 219+7*(i%2))))
	}
	f.replaced(many...)
	if err := f.DB.Write(ctx, func(tx *sql.Tx) error { return f.Adopt(ctx, tx, "n-b", "n-a") }); err != nil {
		t.Fatal(err)
	}
	f.Adopted("n-b", "n-a")
	f.open()
	f.owes(len(many))
	if err := f.Report(ctx, "n-a", "d", model.Inventory{Buses: []model.SensorBus{{Path: "i2c.1"}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{atOnce, 2, 0} {
		f.given = nil
		if !f.Knows("n-a", "d") {
			t.Error("its inventory is forgotten")
		}
		if f.giveAll(ctx, now); len(f.given) != want {
			t.Errorf("it was told of %d, want %d: %v", len(f.given), want, f.given)
		}
	}
	if err := f.DB.Write(ctx, func(tx *sql.Tx) error { _, err := tx.ExecContext(ctx, `UPDATE nodes SET revoked = 1`); return err }); err != nil {
		t.Fatal(err)
	}
	if err := f.forget(ctx); err != nil {
		t.Fatal(err)
	}
	f.owes(0)
}
