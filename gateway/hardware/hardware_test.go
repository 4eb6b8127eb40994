package hardware

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

type fixture struct {
	*Book
	t    *testing.T
	path string

	mu    sync.Mutex // guards what follows
	given []string
	last  model.SensorCommand
	off   string // a node
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "config.db")}
	storetest.PutConfig(t, f.path)
	f.open()
	return f
}

// open begins, as after a restart.
func (f *fixture) open() {
	f.t.Helper()
	if f.Book != nil {
		if err := errors.Join(f.save(f.t.Context(), time.Now(), true), f.DB.Close()); err != nil {
			f.t.Fatal(err)
		}
	}
	db, _, err := store.OpenConfig(f.t.Context(), f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	for _, node := range []string{"n-a", "n-b"} {
		if err := db.Write(f.t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(f.t.Context(), `INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, admitted_by, joined) VALUES (?1, ?1, 'node', ?1, ?1, ?1, 'test', 0) ON CONFLICT DO NOTHING`, node)
			return err
		}); err != nil {
			f.t.Fatal(err)
		}
	}
	quiet, c := slog.New(slog.DiscardHandler), clock.New(time.Now, time.Time{})
	f.Book, err = New(f.t.Context(), Config{DB: db, Clock: c, Events: events.New(db, c, 1, quiet), Log: quiet, Command: func(_ context.Context, node string, c model.Command) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := c.Check(); err != nil {
			f.t.Errorf("%+v: %v", c.Sensor, err)
		}
		what := c.Sensor.Name
		if c.Sensor.Do == model.SensorAssign {
			what = model.SensorKey(c.Sensor.Bus, c.Sensor.Address) + " " + c.Sensor.Chip
		}
		f.given = append(f.given, node+" "+string(c.Sensor.Do)+" "+what)
		f.last = *c.Sensor
		if node == f.off {
			return errors.New("it is off")
		}
		return nil
	}})
	if err != nil {
		f.t.Fatal(err)
	}
}

func all(string) (string, bool, bool) { return "mast", true, true }

const template1 = `name = "odd"
title = "Odd"
datasheet = "none"
addresses = [0x31]
measure = [ { write = [0x00], read = 1, into = "a" } ]
[fields]
a = { in = "a", at = 0, type = "u8" }
[[value]]
name = "x_c"
title = "x"
formula = "a"
range = [0, 255]
`

func chip(addr uint16) model.SensorChip {
	return model.SensorChip{Bus: "i2c.1", Address: addr, State: model.SensorOK, Chip: "bme280", Label: "bme280"}
}

func TestInventoriesAndNamesAreKept(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	if err := f.Report(ctx, "n-a", "d1", model.Inventory{Sensors: []model.SensorChip{chip(0x76), chip(0x77)}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Report(ctx, "n-a", "d2", model.Inventory{Sensors: []model.SensorChip{chip(0x76), chip(0x76)}}); err == nil {
		t.Error("two sensors have one place")
	}
	name := " air "
	if s, err := f.Update(ctx, "i2c.1-76", "n-a", etag.Match{}, apitype.UpdateSensor{Name: &name}, all); err != nil || s.Name != "air" {
		t.Errorf("got %+v, %v", s, err)
	}
	f.open()
	if !f.Knows("n-a", "d1") || f.Knows("n-a", "d2") || f.Knows("n-b", "d1") {
		t.Error("which inventories are known is not kept")
	}
	l := f.List(Query{}, all)
	if len(l) != 2 || l[0].Name != "air" || l[1].Name != "" {
		t.Errorf("got %+v", l)
	}
	if l := f.List(Query{}, func(string) (string, bool, bool) { return "", false, false }); len(l) != 0 {
		t.Errorf("of a node that is no member: %+v", l)
	}
	// Another device takes its place.
	if err := f.DB.Write(ctx, func(tx *sql.Tx) error { return f.Adopt(ctx, tx, "n-a", "n-b") }); err != nil {
		t.Fatal(err)
	}
	f.Adopted("n-a", "n-b")
	if err := f.Report(ctx, "n-b", "d3", model.Inventory{Sensors: []model.SensorChip{chip(0x76)}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if l := f.List(Query{}, all); len(l) != 1 || l[0].Node != "n-b" || l[0].Name != "air" {
			t.Errorf("got %+v", l)
		}
		f.open()
	}
}

// TestNodesAreGivenTemplates that they lack, once in a while, and are told of those that
// were deleted.
func TestNodesAreGivenTemplates(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	step := func(now time.Time, want string) {
		t.Helper()
		f.given = nil
		f.giveAll(ctx, now)
		if got := strings.Join(f.given, ", "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	has := func(node string, templates ...model.NodeTemplate) {
		t.Helper()
		if err := f.Report(ctx, node, time.Now().String(), model.Inventory{Templates: templates}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	has("n-a")
	step(now, "")
	stored, err := f.PutTemplate(ctx, "odd", template1, "user:root", etag.Match{}, all)
	if err != nil {
		t.Fatal(err)
	}
	step(now, "n-a put-template odd")
	has("n-a") // it did not take it
	step(now.Add(time.Minute), "")
	has("n-a")
	step(now.Add(2*time.Hour), "n-a put-template odd")
	mine := model.NodeTemplate{Name: "odd", Digest: stored.Digest}
	has("n-a", mine, model.NodeTemplate{Name: "own", Digest: "1"}) // one that somebody put on the card is left alone
	step(now.Add(4*time.Hour), "")
	if s, err := f.Template("odd", all); err != nil || s.On != 1 || s.Missing != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := f.PutTemplate(ctx, "odd", template1+"# another\n", "user:root", etag.Match{}, all); err != nil {
		t.Fatal(err)
	}
	step(now, "n-a put-template odd")
	if err := f.DeleteTemplate(ctx, "odd", "user:root", etag.Match{}, all); err != nil {
		t.Fatal(err)
	}
	f.open()
	again, err := f.Template("odd", all)
	if err == nil {
		t.Errorf("what was deleted is there: %+v", again)
	}
	has("n-a", mine) // an older one: it was off when the text changed
	step(now, "n-a delete-template odd")
	has("n-b", model.NodeTemplate{Name: "odd", Digest: "1"}) // somebody's own, of the same name
	step(now, "")
	has("n-b", model.NodeTemplate{Name: "odd", Digest: f.templates["odd"].digest})
	step(now, "n-b delete-template odd")
	has("n-b")
	step(now, "")
}

// TestInventoriesAreWrittenAtAPace: what one captured node tells does not wear out the card,
// and is not lost when the process ends.
func TestInventoriesAreWrittenAtAPace(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	save := func(now time.Time) {
		t.Helper()
		if err := f.save(ctx, now, false); err != nil {
			t.Fatal(err)
		}
	}
	before := f.DB.Commits()
	digest := ""
	for i := range 50 {
		digest = fmt.Sprint("d", i)
		if err := f.Report(ctx, "n-a", digest, model.Inventory{Sensors: []model.SensorChip{chip(uint16(0x10 + i))}}); err != nil {
			t.Fatal(err)
		}
		if !f.Knows("n-a", digest) {
			t.Fatal("what it has just told is not known")
		}
		save(time.Now())
	}
	if n := f.DB.Commits() - before; n != writeBurst {
		t.Errorf("an inventory that changes all the time was written %d times at once, want %d", n, writeBurst)
	}
	if wait := time.Until(f.next()); wait < writeEvery-time.Minute || wait > writeEvery {
		t.Errorf("it is written again in %v, want %v", wait, writeEvery)
	}
	save(f.next())
	if n := f.DB.Commits() - before; n != writeBurst+1 || !f.next().IsZero() {
		t.Errorf("later it was written %d times, want once", n-writeBurst)
	}
	if err := f.Report(ctx, "n-a", "last", model.Inventory{}); err != nil {
		t.Fatal(err)
	}
	end, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.Run(end); err != nil {
		t.Error(err)
	}
	f.open()
	if !f.Knows("n-a", "last") {
		t.Error("what was told before the end is not kept")
	}
}

// TestNodesThatAreMembersNoMoreAreForgotten: what is on their buses at once, and what people
// say of it when nobody knows the node any more.
func TestNodesThatAreMembersNoMoreAreForgotten(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	name := "air"
	for _, node := range []string{"n-a", "n-b"} {
		if err := f.Report(ctx, node, "d", model.Inventory{Sensors: []model.SensorChip{chip(0x76)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Update(ctx, "i2c.1-76", node, etag.Match{}, apitype.UpdateSensor{Name: &name}, all); err != nil {
			t.Fatal(err)
		}
	}
	f.open() // and all is written
	count := func(table string) (n int) {
		t.Helper()
		if err := f.DB.Read().QueryRowContext(ctx, `SELECT count(*) FROM `+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	step := func(statement string, inventories, names int) {
		t.Helper()
		if err := f.DB.Write(ctx, func(tx *sql.Tx) error { _, err := tx.ExecContext(ctx, statement); return err }); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.forget(ctx), f.save(ctx, time.Now(), true)); err != nil {
			t.Fatal(err)
		}
		if i, n := count("inventories"), count("sensors"); i != inventories || n != names || len(f.nodes) != inventories || len(f.said) != names {
			t.Errorf("%s: %d inventories and %d names are kept, and %d and %d are known; want %d and %d", statement, i, n, len(f.nodes), len(f.said), inventories, names)
		}
	}
	step(`UPDATE nodes SET revoked = 0`, 2, 2)
	step(`UPDATE nodes SET revoked = 1 WHERE id = 'n-b'`, 1, 2)
	step(`DELETE FROM nodes WHERE id = 'n-b'`, 1, 1)
	// What a node told just before is not written once it is none.
	if err := f.Report(ctx, "n-b", "d2", model.Inventory{}); err != nil {
		t.Fatal(err)
	}
	if err := f.save(ctx, time.Now(), true); err != nil || count("inventories") != 1 {
		t.Errorf("%d inventories are kept, %v", count("inventories"), err)
	}
}

// TestANodeThatWasOffIsGivenTemplatesWhenItComes, with the buses that it had.
func TestANodeThatWasOffIsGivenTemplatesWhenItComes(t *testing.T) {
	f := newFixture(t)
	ctx, now := t.Context(), time.Now()
	if err := f.Report(ctx, "n-a", "d1", model.Inventory{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PutTemplate(ctx, "odd", template1, "user:root", etag.Match{}, all); err != nil {
		t.Fatal(err)
	}
	f.off = "n-a"
	f.giveAll(ctx, now)
	f.off = ""
	f.giveAll(ctx, now) // it has not come yet
	if len(f.given) != 1 {
		t.Errorf("it was tried as it is off: %v", f.given)
	}
	for range 2 { // it comes, and tells how it is again and again
		if !f.Knows("n-a", "d1") {
			t.Error("what it has is forgotten")
		}
		f.giveAll(ctx, now)
	}
	if len(f.given) != 2 {
		t.Errorf("it was given %v, want the template once", f.given)
	}
}

func TestTemplatesAreBounded(t *testing.T) {
	f := newFixture(t)
	for i := range maxTemplates + 1 {
		name := "odd" + strings.Repeat("a", i%8) + string(rune('a'+i/8))
		_, err := f.PutTemplate(t.Context(), name, strings.Replace(template1, `"odd"`, `"`+name+`"`, 1), "user:root", etag.Match{}, all)
		if full := i == maxTemplates; (err != nil) != full {
			t.Fatalf("number %d: %v", i+1, err)
		}
	}
}
