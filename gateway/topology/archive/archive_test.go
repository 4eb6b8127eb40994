package archive

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/topology"
	"halo.internal/model/graph"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// far is before and after all frames.
var far = [2]time.Time{noon.Add(-24 * 365 * time.Hour), noon.Add(24 * 365 * time.Hour)}

type kept struct {
	t        testing.TB
	path     string
	budget   int64
	repaired []int // frames saved
	states   []error
}

func newKept(t testing.TB) *kept {
	t.Setenv("TMPDIR", "/dev/shm") // many syncs
	return &kept{t: t, path: filepath.Join(t.TempDir(), "topology.db")}
}

func (k *kept) open() *Archive {
	k.t.Helper()
	a, err := Open(k.t.Context(), Config{Path: k.path, Budget: k.budget,
		Repaired: func(_ store.Repair, saved int) { k.repaired = append(k.repaired, saved) },
		State:    func(err error) { k.states = append(k.states, err) }})
	if err != nil {
		k.t.Fatal(err)
	}
	return a
}

// frame is the one of that number: its octets say so.
func frame(n int, size int) topology.Frame {
	f := topology.Frame{At: noon.Add(time.Duration(n) * 10 * time.Second), Kind: topology.FrameDelta}
	if size == 0 {
		f.Kind = topology.FrameMark
		return f
	}
	f.Data = append(binary.BigEndian.AppendUint32(nil, uint32(n)), bytes.Repeat([]byte{byte(n)}, size)...)
	return f
}

func put(t testing.TB, a *Archive, from, to, size int) {
	t.Helper()
	for n := from; n < to; n++ {
		f := frame(n, size)
		if err := a.Append(f.At, f.Kind, f.Data); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers are those of the frames of a time.
func numbers(a *Archive, from, to time.Time) (list []int, err error) {
	for f, err := range a.Range(from, to) {
		if err != nil {
			return list, err
		}
		list = append(list, int(f.At.Sub(noon)/(10*time.Second)))
	}
	return list, nil
}

func (k *kept) want(a *Archive, from, to int) {
	k.t.Helper()
	got, err := numbers(a, far[0], far[1])
	if err != nil {
		k.t.Fatal(err)
	}
	var want []int
	for n := from; n < to; n++ {
		want = append(want, n)
	}
	if !slices.Equal(got, want) {
		k.t.Fatalf("got %d frames %v…, want %d to %d", len(got), got[:min(len(got), 20)], from, to)
	}
}

func TestWhatIsAppendedIsThereAndStays(t *testing.T) {
	k := newKept(t)
	a := k.open()
	put(t, a, 0, 10, 100)
	k.want(a, 0, 10) // though none is on the card
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, a, 10, 15, 0)
	put(t, a, 15, 20, 3000)
	k.want(a, 0, 20)
	if got, _ := numbers(a, noon.Add(50*time.Second), noon.Add(120*time.Second)); !slices.Equal(got, []int{5, 6, 7, 8, 9, 10, 11, 12}) {
		t.Errorf("a time in between: got %v", got)
	}
	for f := range a.Range(noon.Add(150*time.Second), noon.Add(150*time.Second)) {
		if want := frame(15, 3000); f.Kind != want.Kind || !bytes.Equal(f.Data, want.Data) || !f.At.Equal(want.At) {
			t.Errorf("got %+v", f)
		}
	}
	cut := copied(t, k.path) // a power cut now
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = k.open()
	k.want(a, 0, 20)
	put(t, a, 20, 25, 10)
	k.want(a, 0, 25)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	k.path = cut
	a = k.open()
	defer a.Close()
	k.want(a, 0, 10)
	if len(k.repaired) != 0 || len(k.states) != 0 {
		t.Errorf("repaired %v, %v", k.repaired, k.states)
	}
}

// copied is the database as it is on the card at this moment.
func copied(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "cut.db")
	for _, s := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+s, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestTheOrderIsThatOfAppending, also where the clock was set back.
func TestTheOrderIsThatOfAppending(t *testing.T) {
	k := newKept(t)
	a := k.open()
	defer a.Close()
	for _, n := range []int{5, 6, 2, 3, 7} {
		f := frame(n, 9)
		_ = a.Append(f.At, f.Kind, f.Data)
		if n == 2 {
			if err := a.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := numbers(a, far[0], far[1]); err != nil || !slices.Equal(got, []int{5, 6, 2, 3, 7}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestTheOldestGoFirst(t *testing.T) {
	k := newKept(t)
	k.budget = 1 << 20
	a := k.open()
	defer a.Close()
	for n := range 400 {
		put(t, a, 10*n, 10*n+10, 900)
		if err := a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := numbers(a, far[0], far[1])
	if err != nil || len(got) < 600 || got[len(got)-1] != 3999 || got[0] != 4000-len(got) {
		t.Fatalf("got %d frames from %v, %v", len(got), got[:1], err)
	}
	size := int64(0)
	for _, s := range []string{"", "-wal"} {
		info, err := os.Stat(k.path + s)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > k.budget+2<<20 {
		t.Errorf("the files take %d octets with a budget of %d", size, k.budget)
	}
}

// TestWhoReadsWhileItIsWritten has each frame once.
func TestWhoReadsWhileItIsWritten(t *testing.T) {
	k := newKept(t)
	a := k.open()
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var owned sync.WaitGroup
	owned.Go(func() {
		for ctx.Err() == nil {
			_ = a.Flush(ctx)
		}
	})
	for n := range 300 {
		put(t, a, n, n+1, 50)
		if n%3 == 0 {
			k.want(a, 0, n+1)
		}
	}
	cancel()
	owned.Wait()
}

// TestDamage flips and cuts: what is not hit is kept, what is new as well, and it is told.
func TestDamage(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	clean := newKept(t)
	a := clean.open()
	for n := range 60 {
		put(t, a, 20*n, 20*n+20, 400)
		if err := a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(clean.path)
	if err != nil {
		t.Fatal(err)
	}
	repairs, least := 0, 1200
	for round := range 24 {
		k := newKept(t)
		b := bytes.Clone(whole)
		what := ""
		switch round % 4 {
		case 0:
			b = b[:noise.IntN(len(b))]
			what = fmt.Sprintf("cut to %d octets", len(b))
		case 1: // a block of the card reads as zeros
			at := noise.IntN(len(b)/4096) * 4096
			clear(b[at : at+4096])
			what = fmt.Sprintf("block at %d lost", at)
		case 2:
			at := noise.IntN(len(b))
			b[at] ^= 1 << noise.IntN(8)
			what = fmt.Sprintf("bit at %d", at)
		case 3:
			at := noise.IntN(len(b)/4096) * 4096
			copy(b[at:at+4096], b[4096:8192])
			what = fmt.Sprintf("another block at %d", at)
		}
		if err := os.WriteFile(k.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		a := k.open()
		for range 3 {
			if _, err := numbers(a, far[0], far[1]); err == nil {
				break
			}
			if err := a.Flush(t.Context()); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		put(t, a, 2000, 2010, 400)
		if err := a.Flush(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := a.Close(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		a = k.open()
		got, err := numbers(a, far[0], far[1])
		if err != nil || len(got) < 10 || !slices.Equal(got[len(got)-10:], []int{2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009}) {
			t.Errorf("%s: got %d frames, %v", what, len(got), err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		repairs += len(k.repaired)
		if round%4 == 3 && len(k.repaired) > 0 {
			least = min(least, k.repaired[0])
		}
		for i, s := range k.states {
			t.Errorf("%s: state %d: %v", what, i, s)
		}
	}
	if repairs < 5 {
		t.Errorf("got %d repairs", repairs)
	}
	t.Logf("%d repairs; of 1200 frames %d at least were saved of a block that was overwritten", repairs, least)
}

// TestACardThatTakesNothing: what is appended waits, within a bound, and it is told.
func TestACardThatTakesNothing(t *testing.T) {
	k := newKept(t)
	a := k.open()
	defer a.Close()
	put(t, a, 0, 5, 100)
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := store.OpenAsIs(t.Context(), k.path, kind)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	held, done := make(chan struct{}), make(chan struct{})
	var owned sync.WaitGroup
	owned.Go(func() {
		_ = other.Write(context.Background(), func(*sql.Tx) error { close(held); <-done; return errors.New("not written") })
	})
	<-held
	put(t, a, 5, 3000, 1000)
	if err := a.Flush(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	got, err := numbers(a, far[0], far[1])
	if err != nil || len(got) < 900 || len(got) > 1100 || got[4] != 4 || got[len(got)-1] != 2999 {
		t.Errorf("got %d frames, %v", len(got), err)
	}
	close(done)
	owned.Wait()
	if err := a.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if len(k.states) != 2 || k.states[0] == nil || k.states[1] != nil {
		t.Errorf("told %v", k.states)
	}
}

// TestTheNetworkAtAnEarlierTime is kept over a restart, and a time in which nobody wrote
// is known to be one.
func TestTheNetworkAtAnEarlierTime(t *testing.T) {
	k := newKept(t)
	a := k.open()
	record := func(run uint64, from time.Time, scores ...int) {
		r := topology.NewRecorder(a)
		for i, s := range scores {
			p := graph.Picture{Run: run, Seq: uint64(i + 1), At: from.Add(time.Duration(i) * time.Minute), Gateway: "n-aaaaaaaaaaaaaaaaaaaa", Score: s,
				Nodes: []graph.Node{{ID: "n-aaaaaaaaaaaaaaaaaaaa", Kind: graph.KindGateway, Report: graph.Fresh, Overlay: graph.OverlayUp, Score: s}}}
			if err := r.Record(p.At, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	record(1, noon, 90, 40, 80)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = k.open()
	record(2, noon.Add(2*time.Hour), 70, 20)
	for at, want := range map[time.Duration]int{30 * time.Second: 90, 90 * time.Second: 40, 4 * time.Minute: 80, time.Hour: -1, 2*time.Hour + 30*time.Second: 70, 2*time.Hour + 2*time.Minute: 20} {
		p, err := topology.Reader{Store: a}.At(noon.Add(at))
		if want < 0 {
			if !errors.Is(err, topology.ErrNotRecorded) {
				t.Errorf("%v: got %+v, %v", at, p, err)
			}
		} else if err != nil || p.Score != want {
			t.Errorf("%v: got %d, %v, want %d", at, p.Score, err, want)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestADayIsGentleToTheCard: as much as the recorder ever writes, by the clock of a day.
func TestADayIsGentleToTheCard(t *testing.T) {
	k := newKept(t)
	a := k.open()
	defer a.Close()
	now := noon
	a.now = func() time.Time { return now }
	before := a.db.Commits()
	size := topology.HourlyOctets / 360 // each ten seconds
	for n := range 8640 {
		now = noon.Add(time.Duration(n) * 10 * time.Second)
		put(t, a, n, n+1, size)
		if a.due() {
			if err := a.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	commits := a.db.Commits() - before
	if commits > 300 {
		t.Errorf("got %d commits in a day", commits)
	}
	info, err := os.Stat(k.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commits, %d KiB in the file", commits, info.Size()>>10)
}

// After an update was undone, what the later release has made stays as it is; what comes is
// kept beside it, over restarts, and it is there again when that release is.
func TestADatabaseOfALaterRelease(t *testing.T) {
	k := newKept(t)
	a := k.open()
	put(t, a, 0, 10, 100)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	form := func(v int) {
		t.Helper()
		db, err := store.OpenAsIs(t.Context(), k.path, kind)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(store.Form(v))
			return err
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	form(version + 1)
	was, err := os.ReadFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var later []int
		a, err = Open(t.Context(), Config{Path: k.path, Later: func(v int) { later = append(later, v) },
			Repaired: func(store.Repair, int) { t.Error("it was repaired") }})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(later, []int{version + 1}) {
			t.Errorf("told of %v", later)
		}
		if got, err := numbers(a, far[0], far[1]); err != nil || len(got) > 0 && got[0] != 10 {
			t.Errorf("got %v, %v", got, err)
		}
		n, err := numbers(a, far[0], far[1])
		if err != nil {
			t.Fatal(err)
		}
		put(t, a, 10+len(n), 15+len(n), 100)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if is, err := os.ReadFile(k.path); err != nil || !bytes.Equal(is, was) {
			t.Errorf("the file is another one now, %v", err)
		}
	}
	a, err = Open(t.Context(), Config{Path: store.Beside(k.path, version)})
	if err != nil {
		t.Fatal(err)
	}
	k.want(a, 10, 20)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	form(version)
	a = k.open()
	defer a.Close()
	k.want(a, 0, 10)
}

// What is no version of any release is damage, as a bit that has flipped.
func TestAVersionThatIsNone(t *testing.T) {
	k := newKept(t)
	a := k.open()
	put(t, a, 0, 10, 100)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.OpenAsIs(t.Context(), k.path, kind)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`PRAGMA user_version = 5`)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	a = k.open()
	defer a.Close()
	k.want(a, 0, 10)
	if !slices.Equal(k.repaired, []int{10}) {
		t.Errorf("repaired %v", k.repaired)
	}
}
