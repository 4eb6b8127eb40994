package telemetry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/store"
)

// copyTo makes a backup into a folder; between has the time between two files of it.
func (b *bench) copyTo(dir string, between func()) (names []string) {
	b.t.Helper()
	to := filepath.Join(b.dir, "backup.tmp")
	err := b.Backup(b.t.Context(), to, func(name string) error {
		names = append(names, name)
		between()
		path := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Rename(to, path))
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return names
}

// Readings come, and are moved into the week files, while a backup is made. What was
// acknowledged before is in it, and what comes after its restore is kept.
func TestABackupWhileReadingsCome(t *testing.T) {
	for name, moved := range map[string]bool{"moved meanwhile": true, "in the journal": false} {
		t.Run(name, func(t *testing.T) {
			b, before := newBench(t), newKnown()
			b.at = epoch.Add(15 * 24 * time.Hour)
			send := func(b *bench, k *known, seqs ...uint64) {
				t.Helper()
				for _, seq := range seqs {
					e := numbered(t, "n-a", 1, seq)
					if o := b.append(e); o[0] != Stored {
						t.Fatalf("batch %d: %v", seq, o)
					}
					k.take(e)
				}
			}
			compact := func(b *bench) {
				t.Helper()
				if err := b.Compact(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			const later = 20_200 // in the week after
			send(b, before, 1, 2, 3)
			compact(b)
			send(b, before, 4, 5, later, later+1)
			dir, next := t.TempDir(), uint64(6)
			names := b.copyTo(dir, func() {
				for range 3 { // more groups than the journal had when it was copied
					send(b, newKnown(), next, later+next)
					next++
				}
				if moved {
					compact(b)
				}
			})
			want := []string{"telemetry.db", "telemetry/" + weekOf(epoch.UnixMilli()).String() + ".db"}
			if moved {
				want = append(want, "telemetry/"+weekOf(epoch.Add(later*30*time.Second).UnixMilli()).String()+".db")
			}
			if !slices.Equal(names, want) {
				t.Errorf("got %v, want %v", names, want)
			}
			journal := filepath.Join(dir, "telemetry.db")
			if err := Restored(t.Context(), journal, filepath.Join(dir, "telemetry")); err != nil {
				t.Fatal(err)
			}
			r := benchIn(t, dir, nil)
			r.at = b.at
			r.has(before, "n-a")
			// Of what comes now a backup of a while ago knows nothing.
			for seq := uint64(1000); seq < 1005; seq++ {
				send(r, before, seq, later+seq)
			}
			r.has(before, "n-a")
			compact(r)
			r.restart()
			r.has(before, "n-a")
			if kinds := r.events.kinds(); len(kinds) != 0 {
				t.Errorf("events: %v", kinds)
			}
		})
	}
}

// A damaged week does not keep the others from being saved.
func TestABackupOfADamagedWeek(t *testing.T) {
	b, k, path := filled(t)
	damage(t, path, func(d []byte) []byte {
		page := d[len(d)/2/weekPage*weekPage:][:weekPage]
		for i := range page {
			page[i] = 0xa5
		}
		return d
	})
	b.open()
	dir := t.TempDir()
	b.copyTo(dir, func() {})
	if kinds := b.events.kinds(); !slices.Contains(kinds, "telemetry.damaged") {
		t.Errorf("events: %v", kinds)
	}
	if err := Restored(t.Context(), filepath.Join(dir, "telemetry.db"), filepath.Join(dir, "telemetry")); err != nil {
		t.Fatal(err)
	}
	r := benchIn(t, dir, nil)
	total := 0
	for _, node := range []string{"n-a", "n-b", "n-c"} {
		total += r.readable(k, node)
	}
	if total == 0 {
		t.Error("nothing of it is in the backup")
	}
}

func TestABackupOfALaterRelease(t *testing.T) {
	for name, change := range map[string]struct{ file, query string }{
		"a week":      {"telemetry/2026-W47.db", fmt.Sprintf("PRAGMA user_version = %d", weekVersion+1)},
		"the journal": {"telemetry.db", `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, _ := filled(t)
			db, err := store.OpenAsIs(t.Context(), filepath.Join(b.dir, change.file), store.Kind{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = db.Read().Exec(`PRAGMA query_only = 0`)
			if err == nil {
				_, err = db.Read().Exec(change.query)
			}
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			if err := Restored(t.Context(), filepath.Join(b.dir, "telemetry.db"), filepath.Join(b.dir, "telemetry")); !errors.Is(err, store.ErrNewer) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Where there is no room for a copy, nothing is given up for it.
func TestABackupWithoutRoom(t *testing.T) {
	b, _, _ := filled(t)
	b.open()
	b.space = func() (int64, int64) { return 1 << 30, mostReserve }
	err := b.Backup(t.Context(), filepath.Join(b.dir, "backup.tmp"), func(string) error { t.Error("a copy was made"); return nil })
	if !errors.Is(err, store.ErrFull) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
