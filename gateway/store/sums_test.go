package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// filled returns a closed database with users and settings, and two copies of it.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.db")
	d, _ := openConfig(t, path)
	err := d.Write(t.Context(), func(tx *sql.Tx) error {
		for i := range 200 {
			_, err := tx.Exec(`INSERT INTO users (username, role, password, created) VALUES (?, 'viewer', ?, ?)`, fmt.Sprintf("user%03d", i), strings.Repeat("p", 90), i)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = errors.Join(d.Copy(t.Context()), d.Copy(t.Context()), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// rot flips a bit of a file, whose times stay: nobody has written to it.
func rot(t *testing.T, path string, at int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	if err == nil {
		b[0] ^= 1 << (at % 8)
		_, err = f.WriteAt(b, at)
	}
	if err := errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// A bit that flips makes another value of one: a role, a password, whether a node was
// revoked. SQLite sees that in a structure only.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	path := filled(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sqlite := 0
	for at := int64(0); at < info.Size(); at += info.Size()/97 + 1 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Dir(path))); err != nil {
			t.Fatal(err)
		}
		there := filepath.Join(dir, "config.db")
		for _, name := range []string{"", copySuffixes[0], copySuffixes[1]} {
			was, err := os.Stat(path + name)
			if err := errors.Join(err, os.Chtimes(there+name, was.ModTime(), was.ModTime())); err != nil {
				t.Fatal(err)
			}
		}
		rot(t, there, at)
		rot(t, there+copySuffixes[0], at) // so that the second has to help
		if inspect(there, func(db *sql.DB) error { return check(t.Context(), db) }) != nil {
			sqlite++
		}
		d, repair, err := OpenConfig(t.Context(), there)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(repair.Restored, copySuffixes[1]) {
			t.Errorf("bit at %d of %d: got %+v", at, info.Size(), repair)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SQLite itself sees %d of 97", sqlite)
}

func TestRotIsSeenWhileTheDatabaseIsInUse(t *testing.T) {
	path := filled(t)
	d, repair := openConfig(t, path)
	if repair != (Repair{}) {
		t.Fatalf("got %+v", repair)
	}
	for range 5 {
		put(t, d, strings.Repeat("x", 5000))
		if err := errors.Join(d.Flush(t.Context()), d.Verify(), d.Copy(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	newest, err := os.Stat(path + copySuffixes[0])
	if err != nil {
		t.Fatal(err)
	}
	rot(t, path, 4096*3+700)
	if err := d.Verify(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want damage", err)
	}
	if err := d.Copy(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a copy was made of it: %v", err)
	}
	if now, err := os.Stat(path + copySuffixes[0]); err != nil || !now.ModTime().Equal(newest.ModTime()) {
		t.Errorf("the good copy is gone (%v)", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, repair := openConfig(t, path); repair.Restored == "" {
		t.Errorf("the next start takes it for good: %+v", repair)
	}
}

// Both copies have rotted, in what SQLite cannot see: better than nothing.
func TestARottenCopyIsBetterThanNone(t *testing.T) {
	path := filled(t)
	for _, s := range copySuffixes {
		b, err := os.ReadFile(path + s)
		if err != nil {
			t.Fatal(err)
		}
		rot(t, path+s, int64(strings.Index(string(b), "pppp")))
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	d, repair := openConfig(t, path)
	if !strings.HasSuffix(repair.Restored, copySuffixes[0]) {
		t.Errorf("got %+v", repair)
	}
	var n int
	if err := d.Read().QueryRow(`SELECT count(*) FROM users`).Scan(&n); err != nil || n != 200 {
		t.Errorf("got %d users, %v", n, err)
	}
}

// A release before this one, or a person, writes without bringing the sums up to date.
func TestWhatOthersWriteIsNoDamage(t *testing.T) {
	path := filled(t)
	other, err := sql.Open("sqlite", dsn(path, Kind{}, true))
	if err == nil {
		_, err = other.Exec(`UPDATE users SET password = 'another' WHERE username = 'user007'`)
	}
	if err := errors.Join(err, other.Close()); err != nil {
		t.Fatal(err)
	}
	d, repair := openConfig(t, path)
	if repair != (Repair{}) {
		t.Fatalf("got %+v", repair)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	rot(t, path, 4096+600) // the sums are of what is there now
	if _, repair := openConfig(t, path); repair.Restored == "" {
		t.Error("rot after that is not seen")
	}
}

// Power fails at any instant: what is on the card then is never taken for damage.
func TestPowerCutsAreNoDamage(t *testing.T) {
	const rounds = 200
	path := filepath.Join(t.TempDir(), "config.db")
	d, _ := openConfig(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	const writers = 4 // one commits while another brings the log to its place
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			var err error
			for i := 0; ctx.Err() == nil && err == nil; i++ {
				switch value := make([]byte, random.IntN(60_000)); {
				case i%50 == 49:
					err = d.Flush(context.Background())
				default:
					err = d.PutSetting(context.Background(), fmt.Sprintf("k%d", random.IntN(50)), value)
				}
			}
			done <- err
		}()
	}
	whole, struck := 0, 0
	for i := range rounds {
		time.Sleep(time.Duration(i%7) * time.Millisecond)
		card := filepath.Join(t.TempDir(), "config.db")
		// What is on the card need not have the time that the database has by now.
		before, err := os.ReadFile(path + sumsSuffix)
		b, errDB := os.ReadFile(path)
		after, errAfter := os.ReadFile(path + sumsSuffix)
		if err := errors.Join(err, errDB, errAfter); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, after) {
			continue // of two instants
		}
		if err := errors.Join(os.WriteFile(card, b, 0o600), os.WriteFile(card+sumsSuffix, before, 0o600)); err != nil {
			t.Fatal(err)
		}
		known := loadSums(card)
		if known == nil {
			t.Fatal("sums cannot be read")
		}
		if err := os.Chtimes(card, known.at, known.at); err != nil {
			t.Fatal(err)
		}
		if _, err := verifySums(card); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if len(known.struck()) > 0 {
			struck++
		}
		whole++
	}
	t.Logf("%d instants, %d of them while pages were written", whole, struck)
	if whole < rounds/4 {
		t.Error("too few instants")
	}
	cancel()
	for range writers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Verify(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if known, err := verifySums(path); err != nil || known == nil {
		t.Errorf("after an ordered stop: %v, %v; want sums that fit", known != nil, err)
	}
}

// Where somebody who reads is in the way, SQLite itself brings over the rest of the log, when
// the last connection closes: of that a power cut may leave the pages, and not the file's time.
func TestPagesThatSQLiteBringsOverAreNoDamage(t *testing.T) {
	path := filled(t)
	d, _ := openConfig(t, path)
	put(t, d, strings.Repeat("a", 30_000))
	reader, err := d.Read().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRow(`SELECT count(*) FROM users`).Scan(&n); err != nil || n != 200 {
		t.Fatalf("got %d users, %v", n, err)
	}
	if err := d.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE users SET password = 'another'`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.checkpoint(t.Context(), "PASSIVE"); err != nil {
		t.Fatal(err)
	}
	known, before := loadSums(path), read(t, path)
	if known == nil || len(known.struck()) == 0 {
		t.Fatal("expected the sums of what is in the log to be struck out")
	}
	if err := errors.Join(d.read.Close(), d.write.Close(), reader.Rollback()); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(before, read(t, path)) {
		t.Fatal("expected the log to be brought over")
	}
	if err := os.Chtimes(path, known.at, known.at); err != nil {
		t.Fatal(err)
	}
	if _, repair := openConfig(t, path); repair != (Repair{}) {
		t.Errorf("got %+v", repair)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The log is brought over though there is no room for the sums: or it would grow.
func TestAFullDiskCostsTheSumsAlone(t *testing.T) {
	dir := smallDisk(t, "4m")
	d, _ := openConfig(t, filepath.Join(dir, "config.db"))
	put(t, d, strings.Repeat("x", 50_000))
	if err := d.Flush(t.Context()); err != nil { // so that the database need not grow
		t.Fatal(err)
	}
	put(t, d, strings.Repeat("y", 50_000))
	ballast := fillUp(t, dir)
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.path + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("the log was not emptied: %v, %v", info, err)
	}
	if err := errors.Join(os.Remove(ballast), d.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	put(t, d, "more")
	if err := errors.Join(d.Flush(t.Context()), d.Verify(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if known, err := verifySums(d.path); err != nil || known == nil {
		t.Errorf("with room again: sums %v, %v", known != nil, err)
	}
}

func FuzzSums(f *testing.F) {
	f.Add((&sums{page: 4096, at: time.Unix(1, 2), size: 8192, pages: []uint32{1, 2}}).marshal())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "x")
		if err := os.WriteFile(path+sumsSuffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s := loadSums(path); s != nil && string(s.marshal()) != string(b) {
			t.Error("what was read is not what is there")
		}
	})
}
