package store

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"halo.internal/model/wire"
)

// release is the schema of a node after its nth update.
func release(n, metrics int) wire.Schema {
	s := wire.Schema{Metrics: slices.Clone(schema.Metrics)}
	for k := range metrics {
		s.Metrics = append(s.Metrics, wire.NewMetric(fmt.Sprintf("release%d.some-sensor.metric%d", n, k), "", 0))
	}
	return s
}

// A node's schema changes with its updates and sensors. Those that only
// batches of long ago named make room, however many there ever were, and every
// batch that is kept can be read.
func TestSchemasOfDroppedBatchesMakeRoom(t *testing.T) {
	const budget = 400 << 10
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), budget)
	var seq uint64
	var dropped int64
	for n := range 100 {
		s := release(n, 100)
		if err := j.PutSchema(t.Context(), "n-a", s); err != nil {
			t.Fatalf("update %d: %v", n, err)
		}
		for range 2 {
			var group []Entry
			for range 100 {
				seq++
				group = append(group, batchOf(t, s, "n-a", 1, seq))
			}
			if got := add(t, j, group...); slices.ContainsFunc(got, func(o Outcome) bool { return o != Stored }) {
				t.Fatalf("update %d: got outcomes %v", n, got)
			}
			d, err := j.Trim(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			dropped += d
		}
	}
	if dropped == 0 {
		t.Fatal("the budget was never reached: nothing was tried")
	}
	left, err := j.Schemas(t.Context(), "n-a")
	if err != nil || len(left) > 30 || left[0] != release(99, 100).ID() {
		t.Errorf("%d schemas are left, %v; want few, the newest first", len(left), err)
	}
	count := 0
	if err := j.newest(t.Context(), "n-a", 1<<30, func(wire.Batch, wire.Schema) { count++ }); err != nil || int64(count) != int64(seq)-dropped {
		t.Errorf("%d batches can be read, %v; want all %d that are kept", count, err, int64(seq)-dropped)
	}
}

// What RAM remembers of a dropped schema must not let a batch in that nobody
// could read.
func TestABatchOfADroppedSchemaAsksForIt(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), 1<<30)
	add(t, j, batch(t, "n-a", 1, 1)) // schema is in RAM
	if _, err := j.Schema(t.Context(), schema.ID()); err != nil {
		t.Fatal(err)
	}
	err := j.db.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.Exec(`UPDATE batches SET id = 1000000`); err != nil {
			return err
		}
		_, err := dropSchemas(t.Context(), tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := add(t, j, batch(t, "n-a", 1, 2)); got[0] != NoSchema {
		t.Fatalf("got outcome %v, want NoSchema", got[0])
	}
	if _, err := j.Schema(t.Context(), schema.ID()); !errors.Is(err, ErrNoSchema) {
		t.Errorf("asked again: got %v, want ErrNoSchema", err)
	}
	if err := j.PutSchema(t.Context(), "n-a", schema); err != nil {
		t.Fatal(err)
	}
	if got := add(t, j, batch(t, "n-a", 1, 2)); got[0] != Stored {
		t.Errorf("after it came again: got outcome %v, want Stored", got[0])
	}
}

func TestANodeCannotFillTheSchemas(t *testing.T) {
	const budget = 200 << 10
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), budget)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = j.PutSchema(t.Context(), "n-x", release(n, 100))
	}
	if !errors.Is(err, ErrTooManySchemas) {
		t.Fatalf("after %d schemas: got %v, want ErrTooManySchemas", n, err)
	}
	if used, err := j.db.Bytes(t.Context()); err != nil || used > 2*leastSchemas {
		t.Errorf("%d octets are used, %v", used, err)
	}
	for what, err := range map[string]error{
		"a schema that is known already": j.PutSchema(t.Context(), "n-x", schema),
		"another node's schema":          j.PutSchema(t.Context(), "n-y", release(1000, 100)),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A database of an earlier release is brought up to date, and its schemas stay
// for as long as its batches.
func TestSchemasOfAnEarlierRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	j := openJournal(t, path, 1<<30)
	for seq := range uint64(3) {
		add(t, j, batch(t, "n-a", 1, seq+1))
	}
	downTo(t, j.db, "telemetry", 1)
	if err := j.db.Close(); err != nil {
		t.Fatal(err)
	}
	d, _, err := OpenTelemetry(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	j = NewJournal(d, 1<<30)
	var through int
	if err := d.read.QueryRow(`SELECT through FROM schemas`).Scan(&through); err != nil || through != 3 {
		t.Errorf("the schema is in use through batch %d, %v; want 3", through, err)
	}
	if got := add(t, j, batch(t, "n-a", 1, 4)); got[0] != Stored {
		t.Errorf("got outcome %v, want Stored", got[0])
	}
}

// downTo makes a database one of an earlier release.
func downTo(t *testing.T, d *DB, kind string, version int64) {
	t.Helper()
	sub, err := fs.Sub(migrations, kind)
	if err != nil {
		t.Fatal(err)
	}
	p, err := provider(sub, d.write)
	if err == nil {
		_, err = p.DownTo(t.Context(), version)
	}
	if err != nil {
		t.Fatal(err)
	}
}
