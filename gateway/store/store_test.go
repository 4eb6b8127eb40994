package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openConfig(t *testing.T, path string) (*DB, Repair) {
	t.Helper()
	d, r, err := OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, r
}

// Earlier ones may corrupt a WAL database when it is reset.
func TestSQLiteIsNewEnough(t *testing.T) {
	d, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
	v, err := d.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var major, minor, patch int
	if _, err := fmt.Sscanf(v, "%d.%d.%d", &major, &minor, &patch); err != nil {
		t.Fatal(err)
	}
	if got := major*1_000_000 + minor*1_000 + patch; got < 3_051_003 {
		t.Errorf("SQLite %s, want 3.51.3 or later", v)
	}
}

func TestPragmas(t *testing.T) {
	d, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := d.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s is %s, want %s", pragma, got, want)
		}
	}
	if _, err := d.Read().Exec(`DELETE FROM settings`); err == nil {
		t.Error("a connection for reading could write")
	}
}

func put(t *testing.T, d *DB, value string) {
	t.Helper()
	if err := d.PutSetting(t.Context(), "k", []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, d *DB) string {
	t.Helper()
	v, err := d.Setting(t.Context(), "k", func() []byte { return []byte("none") })
	if err != nil {
		t.Fatal(err)
	}
	return string(v)
}

func TestDamagedConfigIsSetAsideAndRestored(t *testing.T) {
	overwrite := func(from int64, size int) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(strings.Repeat("x", size)), from); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		damage func(*testing.T, string)
		copies int // good copies beside it
		want   string
	}{
		{"header gone", overwrite(0, 100), 2, "second"},
		{"pages overwritten", overwrite(4096, 8192), 2, "second"},
		{"cut in half", cut(8192 + 100), 2, "second"},
		{"cut to nothing", cut(0), 2, "second"},
		{"newest copy is bad too", func(t *testing.T, path string) {
			overwrite(0, 100)(t, path)
			overwrite(4096, 8192)(t, path+copySuffixes[0])
		}, 2, "first"},
		{"no copy", overwrite(0, 100), 0, "none"},
		{"cut to nothing, no copy", cut(0), 0, "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			d, _ := openConfig(t, path)
			for _, v := range []string{"first", "second"} {
				put(t, d, v)
				if tc.copies > 0 {
					if err := d.Copy(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			tc.damage(t, path)

			d, repair := openConfig(t, path)
			if repair.Reason == "" {
				t.Error("the damage was not noticed")
			}
			if _, err := os.Stat(repair.Aside); err != nil {
				t.Errorf("the damaged database was not kept: %v", err)
			}
			if got := get(t, d); got != tc.want {
				t.Errorf("got the state %q, want %q", got, tc.want)
			}
			if (repair.Restored != "") != (tc.copies > 0) {
				t.Errorf("restored from %q with %d copies", repair.Restored, tc.copies)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			// The power is cut before the caller has settled what follows.
			d, again := openConfig(t, path)
			if again.Restored != repair.Restored {
				t.Errorf("the next start says that it was restored from %q, want %q", again.Restored, repair.Restored)
			}
			if err := errors.Join(d.Settled(), d.Settled(), d.Close()); err != nil {
				t.Fatal(err)
			}
			if _, again := openConfig(t, path); again.Reason != "" {
				t.Errorf("the start after it found damage again: %s", again.Reason)
			}
		})
	}
}

func TestADamagedDatabaseWithoutCopiesIsReplaced(t *testing.T) {
	for name, content := range map[string]string{"rubbish": strings.Repeat("not a database ", 1000), "empty": ""} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "telemetry.db")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			d, repair, err := Open(t.Context(), path, Kind{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if repair.Reason == "" || repair.Restored != "" {
				t.Errorf("got %+v, want a reason and nothing restored", repair)
			}
		})
	}
}

func TestAFirstStartIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	for name, open := range map[string]func(context.Context, string) (*DB, Repair, error){"config.db": OpenConfig, "telemetry.db": func(ctx context.Context, path string) (*DB, Repair, error) {
		return Open(ctx, path, Kind{Rollback: true, PageSize: 16384})
	}} {
		d, repair, err := open(t.Context(), filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if repair != (Repair{}) {
			t.Errorf("%s: got %+v, want nothing", name, repair)
		}
	}
}

// Another process that holds the lock, such as a person's sqlite3.
func TestLockedByAnotherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.db")
	d, _ := openConfig(t, path)
	var states []error
	d.Watch(func(err error) { states = append(states, err) })
	other, err := sql.Open("sqlite", dsn(path, Kind{}, true))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = d.PutSetting(t.Context(), "k", []byte("v"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "lock") {
		t.Fatalf("got %v, want ErrUnavailable that speaks of the lock", err)
	}
	if get := func() error { _, err := d.Bytes(t.Context()); return err }; get() != nil {
		t.Errorf("reading must go on: %v", get())
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	put(t, d, "v")
	if len(states) != 2 || states[0] == nil || states[1] != nil {
		t.Errorf("watcher heard %v, want the failure and its end", states)
	}
}

// smallDisk returns a folder on a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small file system is needed, and root to make it: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp leaves no room on the file system, and returns the file that takes it.
func fillUp(t *testing.T, dir string) string {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	return ballast
}

// A full disk must neither lose what is stored nor keep the database from
// working once there is room again.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "1m")
	d, _, err := OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put(t, d, "kept")
	ballast := fillUp(t, dir)
	for err = nil; err == nil; { // what room SQLite has in its files is used up first
		err = d.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT INTO settings (name, value) VALUES (hex(randomblob(8)), randomblob(65536))`)
			return err
		})
	}
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if got := get(t, d); got != "kept" {
		t.Errorf("what was stored reads %q", got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	put(t, d, "again")
}

func TestAWriteWhoseCallerHasGoneSaysSo(t *testing.T) {
	d, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Write(ctx, func(tx *sql.Tx) error {
		cancel()
		for {
			if _, err := tx.Exec("SELECT 1"); err != nil {
				return err
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("expected the end of the context, got %v", err)
	}
	if err := d.Write(t.Context(), func(*sql.Tx) error { return nil }); err != nil {
		t.Errorf("the next write: %v", err)
	}
}

func TestWriteRollsBackAndKeepsTheCallersError(t *testing.T) {
	d, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
	want := errors.New("no")
	err := d.Write(t.Context(), func(tx *sql.Tx) error {
		if err := PutSetting(t.Context(), tx, "k", []byte("v")); err != nil {
			return err
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Errorf("got %v, want the caller's error", err)
	}
	if got := get(t, d); got != "none" {
		t.Errorf("a rolled-back value %q was stored", got)
	}
	ended, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ended.Done()
	if err := d.PutSetting(ended, "k", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's end", err)
	}
}

// A damaged database on a card that has no room for another one of its copy, or none at all: no
// other is begun, which would in time replace the copies. It is restored at once, or else when
// there is some room.
func TestDamageOnAFullDisk(t *testing.T) {
	const (
		large = 2 << 20   // what the copy takes beyond what a new database does
		least = 512 << 10 // enough for that
	)
	header := func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, 100), 0)
		return errors.Join(err, f.Close())
	}
	cut := func(path string) error { return os.Truncate(path, 0) }
	for _, tc := range []struct {
		name   string
		damage func(string) error
		free   int64 // octets
		waits  bool  // for room
		moved  bool
	}{
		{"no room", header, 0, true, true},
		{"room for another database", header, least, false, true},
		{"room for half the copy", header, large / 2, false, true},
		{"room for the copy", header, 2 * large, false, false},
		{"nothing is left of it, and there is no room", cut, 0, true, true},
		{"nothing is left of it, and there is room for another database", cut, least, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := smallDisk(t, "16m")
			path := filepath.Join(dir, "config.db")
			d, _ := openConfig(t, path)
			if err := d.PutSetting(t.Context(), "large", make([]byte, large)); err != nil {
				t.Fatal(err)
			}
			for _, v := range []string{"first", "second"} {
				put(t, d, v)
				copyDB(t, d)
			}
			if err := errors.Join(d.Close(), tc.damage(path)); err != nil {
				t.Fatal(err)
			}
			ballast := fillUp(t, dir)
			keep := func(free int64) {
				t.Helper()
				info, err := os.Stat(ballast)
				if err == nil {
					err = os.Truncate(ballast, info.Size()-free)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			keep(tc.free)
			if tc.waits {
				for range 3 {
					if _, _, err := OpenConfig(t.Context(), path); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrFull) {
						t.Fatalf("without room: got %v, want it to be full", err)
					}
				}
				keep(least)
			}
			d, repair := openConfig(t, path)
			if got := get(t, d); got != "second" || repair.Restored != path+copySuffixes[0] {
				t.Errorf("got the state %q of %+v, want that of the newest copy", got, repair)
			}
			if _, err := os.Stat(repair.Aside); err != nil {
				t.Errorf("the damaged database was not kept: %v", err)
			}
			if _, err := os.Stat(path + copySuffixes[0]); errors.Is(err, fs.ErrNotExist) != tc.moved {
				t.Errorf("the copy was moved: %v, want %t", err, tc.moved)
			}
			if !good(t.Context(), path+copySuffixes[1]) {
				t.Error("the other copy is not what it was")
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if lag(t, d).Change != tc.moved {
				t.Errorf("that a copy is due: %t, want %t", !tc.moved, tc.moved)
			}
		})
	}
}

// Only a copy that cannot be read is a damaged one: of a place that cannot be written the next
// copy, or a new database, would be no better.
func TestWhatHasTheNextCopyTried(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "copy")
	if err := os.WriteFile(from, []byte("copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, from, to string
		damaged        bool
	}{
		{"the copy cannot be read", dir, filepath.Join(dir, "a"), true},
		{"the place cannot be written", from, filepath.Join(dir, "none", "a"), false},
		{"something is in its place", from, from, false},
		{"there is no copy", filepath.Join(dir, "none"), filepath.Join(dir, "a"), false},
	} {
		if err := restore(tc.from, tc.to); err == nil || errors.Is(err, ErrCorrupt) != tc.damaged {
			t.Errorf("%s: got %v, want that the copy is damaged: %t", tc.name, err, tc.damaged)
		}
	}
}

// What was set aside stays while its copy cannot take its place, its log as well.
func TestSetAsideTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	for _, s := range []string{"", "-wal"} {
		if err := os.WriteFile(path+s, []byte("damaged"+s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		aside, err := SetAside(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"", "-wal"} {
			if b, err := os.ReadFile(aside + s); err != nil || string(b) != "damaged"+s {
				t.Errorf("%s: got %q, %v", aside+s, b, err)
			}
		}
	}
}
