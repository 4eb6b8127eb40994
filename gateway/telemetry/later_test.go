package telemetry

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/store"
)

// form makes a closed week file say that it is of that version.
func form(t *testing.T, path string, version int) {
	t.Helper()
	db, err := store.OpenAsIs(t.Context(), path, weekKind)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(store.Form(version))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// After an update was undone, what the later release has made of a week stays as it is, to
// the octet; what comes for that week is kept beside it, and an event says so.
func TestAWeekOfALaterRelease(t *testing.T) {
	b, k, path := filled(t)
	form(t, path, weekVersion+1)
	if err := os.Truncate(path, 12<<20); err != nil { // large, as all of this release's is not
		t.Fatal(err)
	}
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.open()
	e := b.events.list[len(b.events.list)-1]
	if e.Kind != "telemetry.newer" || e.Fields["from"] != "2026-W47" || e.Fields["weeks"] != "1" || e.Fields["version"] != fmt.Sprint(weekVersion+1) {
		t.Errorf("got event %+v", e)
	}
	b.at = epoch.Add(3 * 24 * time.Hour)
	if got := b.readable(k, "n-a"); got != 0 {
		t.Errorf("%d readings of a form that is not known", got)
	}
	late := []Entry{numbered(t, "n-a", 9, 1), numbered(t, "n-d", 9, 1)}
	b.append(late...)
	for _, l := range late {
		k.take(l)
	}
	check := func(what string) {
		t.Helper()
		for _, node := range []string{"n-a", "n-d"} {
			if got := b.readable(k, node); got != 6 {
				t.Errorf("%s: %d readings of %s came after, want 6", what, got, node)
			}
		}
		if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, was) {
			t.Errorf("%s: the file is another one now, %v", what, err)
		}
	}
	check("in the journal")
	b.tend()
	check("compacted")
	b.restart()
	b.tend()
	check("after a restart")
	var names []string
	if err := b.Backup(t.Context(), filepath.Join(b.dir, "backup.tmp"), func(name string) error {
		names = append(names, name)
		return os.Remove(filepath.Join(b.dir, "backup.tmp"))
	}); err != nil || !slices.Contains(names, "telemetry/2026-W47.db") {
		t.Errorf("a backup has %q, %v", names, err)
	}
	for _, kind := range b.events.kinds() {
		if kind != "telemetry.newer" {
			t.Errorf("events %q", b.events.kinds())
		}
	}

	// The budget is not spent on it: nothing is given up for what is not this release's.
	b.SetRetention(Retention{Keep: DefaultKeep(), Budget: int64(len(was)) / 2})
	b.tend()
	check("with a small budget")

	// It goes by its age, as all do.
	b.at = epoch.AddDate(6, 0, 0)
	b.tend()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there after six years: %v", err)
	}
	b.tend()
	if got := b.weeks.list(); len(got) != 0 {
		t.Errorf("left is %v", got)
	}
}

// The later release comes back, or its form becomes this one's: its readings are there.
func TestALaterReleaseComesBack(t *testing.T) {
	b, k, path := filled(t)
	b.open()
	all := b.readable(k, "n-a")
	b.close()
	form(t, path, weekVersion+1)
	b.open()
	b.at = epoch.Add(3 * 24 * time.Hour)
	b.append(numbered(t, "n-a", 9, 1))
	b.tend()
	b.close()
	form(t, path, weekVersion)
	b.open()
	if got := b.readable(k, "n-a"); got != all {
		t.Errorf("%d readings are there, want %d", got, all)
	}
}

// A group that a later release has left in the journal stays there, too.
func TestAGroupOfALaterRelease(t *testing.T) {
	b := newBench(t)
	b.append(numbered(t, "n-a", 1, 1))
	later := []byte{groupVersion + 1, 0xff, 0xff, 7, 7, 7}
	if err := b.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO groups (id, at_ms, body) VALUES (?, 1, ?)`, b.lastGroup+1, later)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	number := int64(0)
	there := func(what string) {
		t.Helper()
		var body []byte
		var n int
		var id int64
		if err := b.db.Read().QueryRow(`SELECT id, body, (SELECT count(*) FROM groups WHERE length(body) > 1) FROM groups WHERE at_ms = 1`).Scan(&id, &body, &n); err != nil || !bytes.Equal(body, later) || n != 1 {
			t.Errorf("%s: got %x of %d groups, %v", what, body, n, err)
		}
		if id <= b.lastGroup || number > 0 && id != number {
			t.Errorf("%s: its number is %d, and was %d; want one above %d, given once", what, id, number, b.lastGroup)
		}
		number = id
	}
	b.restart()
	b.append(numbered(t, "n-a", 1, 2))
	b.tend()
	there("after compaction")
	b.restart()
	b.append(numbered(t, "n-a", 1, 3))
	b.tend()
	there("after another")
	if got := b.Coverage("n-a").Boots[0]; got.Count != 3 || got.Dropped != 0 {
		t.Errorf("got %+v", got)
	}
	b.close()
	if _, err := store.SetAside(filepath.Join(b.dir, "telemetry.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "telemetry.db.salvage"), []byte("it was damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	there("salvaged")

	// The release that knows it has it in its answers, and takes it into the files.
	e := numbered(t, "n-a", 1, 4)
	known, _ := appendItem([]byte{groupVersion}, item{1, e.Batch.Reports[0].Time, e.Batch.Reports[2].Time, e.Data})
	if err := b.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE groups SET body = ? WHERE at_ms = 1`, known)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.append(numbered(t, "n-a", 1, 5))
	for _, what := range []string{"in the journal", "in the files"} {
		if got := b.count("n-a"); got != 5*3 {
			t.Errorf("%s: %d readings are there, want those of five batches", what, got)
		}
		b.tend()
	}
	if b.headCount != 0 {
		t.Errorf("%d batches are left in the journal", b.headCount)
	}
}

// A week of a later release whose header could not be read at the start is left alone all
// the same.
func TestAWeekOfALaterReleaseThatShowsLate(t *testing.T) {
	b, _, path := filled(t)
	form(t, path, weekVersion+1)
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.open()
	for w := range b.weeks.later { // as if it could not
		b.weeks.known[w] = true
	}
	clear(b.weeks.later)
	b.append(numbered(t, "n-a", 9, 1))
	b.tend()
	if got := b.count("n-a"); got != 3 {
		t.Errorf("%d readings came after, want 3", got)
	}
	if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, was) {
		t.Errorf("the file is another one now, %v", err)
	}
	if got := b.events.kinds(); slices.Contains(got, "telemetry.damaged") {
		t.Errorf("events %q", got)
	}
}

// What a later release has made goes for room where the file system has none, and not since
// this release's own takes more than it may.
func TestRoomOfALaterRelease(t *testing.T) {
	b, _, path := filled(t)
	form(t, path, weekVersion+1)
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.at = epoch.Add(30 * 24 * time.Hour)
	var group []Entry
	for seq := range uint64(2000) {
		group = append(group, stamped(t, "n-a", seq+1, b.at.Add(time.Duration(seq-4000)*time.Second)))
	}
	b.append(group...)
	b.SetRetention(Retention{Keep: DefaultKeep(), Budget: 1})
	b.tend()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("for the budget: %v", err)
	}
	if got := b.weeks.ofLater(); len(got) != 1 {
		t.Errorf("left are %v", got)
	}
	b.SetRetention(Retention{Keep: DefaultKeep(), Budget: 1 << 30})
	if err := b.makeRoom(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("where there is no room: %v", err)
	}
}
