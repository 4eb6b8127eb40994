package epoch

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"halo.internal/gateway/store"
)

var today = start.AddDate(0, 0, 40).Add(7 * time.Hour)

// Each case is a start of the gateway after those that left the records as
// they are; "" is a record that is not there.
func TestSettle(t *testing.T) {
	for _, tc := range []struct {
		name         string
		stored, file string
		announced    uint64
		restored     bool
		now          time.Time
		want         uint64
	}{
		{"first start", "", "", 0, false, today, 40_000},
		{"first start on the first day", "", "", 0, false, start, 1},
		{"first start before any clock", "", "", 0, false, time.Time{}, 1},
		{"next start", "40000", "40000", 40_000, false, today.AddDate(1, 0, 0), 40_000},
		{"database of an earlier release", "1", "", 0, false, today, 1},
		{"restored from a copy", "7", "7", 7, true, today, 8},
		{"restored from a copy of before the last raise", "7", "9", 9, true, today, 10},
		{"restored, the file is gone", "7", "", 0, true, today, 8},
		{"made anew", "", "7", 7, false, today, 8},
		{"made anew, the file is gone too", "", "", 7, false, today, 8},
		{"made anew, the file cannot be read", "", "rubbish", 7, false, today, 8},
		{"an old database was put back by hand", "7", "9", 9, false, today, 10},
		{"the whole folder was put back by hand", "7", "7", 9, false, today, 10},
		{"a power cut between file and database", "7", "8", 7, false, today, 9},
		{"the file was lost", "7", "", 7, false, today, 7},
		{"the file rotted", "7", "99999999999999999999", 7, false, today, 7},
		{"the database's rotted", "-1", "7", 0, false, today, 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			db, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			file := filepath.Join(dir, "epoch")
			if tc.file != "" {
				err = os.WriteFile(file, []byte(tc.file+"\n"), 0o600)
			}
			if err == nil && tc.stored != "" {
				err = db.PutSetting(t.Context(), setting, []byte(tc.stored))
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := Settle(t.Context(), db, Evidence{File: file, Announced: tc.announced, Restored: tc.restored, Now: tc.now})
			if err != nil || got != tc.want {
				t.Fatalf("got %d, %v; want %d", got, err, tc.want)
			}
			b, err := os.ReadFile(file)
			if err != nil || parse(string(b)) != got {
				t.Errorf("the file says %q, %v", b, err)
			}
			if stored, err := load(t.Context(), db); err != nil || stored != got {
				t.Errorf("the database says %d, %v", stored, err)
			}
			if again, err := Settle(t.Context(), db, Evidence{File: file, Announced: got, Now: tc.now.AddDate(1, 0, 0)}); err != nil || again != got {
				t.Errorf("the start after it: got %d, %v; want it unchanged", again, err)
			}
		})
	}
}

// What cannot be written down must not be announced: the next start would not
// know of it.
func TestAnEpochThatCannotBeKeptIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	db, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if e, err := Settle(t.Context(), db, Evidence{File: filepath.Join(dir, "no such folder", "epoch"), Now: today}); err == nil {
		t.Errorf("got epoch %d, want an error", e)
	}
	if e, err := load(t.Context(), db); err != nil || e != 0 {
		t.Errorf("the database says %s, %v; want none", strconv.FormatUint(e, 10), err)
	}
}
